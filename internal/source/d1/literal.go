package d1

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"etl/internal/fault"
)

// A literal is a value of the database as a string that JSON and JavaScript do
// not change: a letter for the storage class, then the value.
//
//	n                          NULL
//	i-9223372036854775808      INTEGER
//	r1.50000000000000000000e+00, rInf, r-Inf   REAL, 21 digits
//	t6162, b00ff               TEXT and BLOB, their bytes in hex
//
// hex doubles the length, and D1 makes no string of more than 2,000,000 bytes.
// So TEXT and BLOB beyond hexBytes come as an array of bytes, the letter first.
// quote() would end text at a NUL; printf with fewer digits need not give
// back the same REAL.
const hexBytes = 900_000

// literalOf is the SQL of the literal of a column, with what prefix, SQL too,
// gives put before it; prefix may be "".
func literalOf(col, prefix string) string {
	if prefix != "" {
		prefix += "||"
	}
	return strings.NewReplacer("$P", prefix, "$C", col, "$N", strconv.Itoa(hexBytes)).Replace(
		"iif(typeof($C)='integer',$P'i'||$C," +
			"iif(typeof($C)='real',$P'r'||printf('%!.20e',$C)," +
			"iif($C IS NULL,$P'n'," +
			"iif(length(CAST($C AS BLOB))>$N,CAST($Psubstr(typeof($C),1,1)||$C AS BLOB)," +
			"$Psubstr(typeof($C),1,1)||hex($C)))))")
}

// literal is the value of a cell that was selected by literalOf, in either form.
func literal(cell any) (any, error) {
	switch c := cell.(type) {
	case []byte:
		if len(c) > 0 && c[0] == 't' {
			return string(c[1:]), nil
		}
		if len(c) > 0 && c[0] == 'b' {
			return c[1:], nil
		}
	case string:
		if v, err := textLiteral(c); err == nil {
			return v, nil
		}
	}
	return nil, fault.Errorf(fault.Invalid, "the answer has %.40q, which is no literal", fmt.Sprint(cell))
}

func textLiteral(s string) (any, error) {
	if s == "" {
		return nil, errNoLiteral
	}
	switch class, s := s[0], s[1:]; class {
	case 'n':
		if s == "" {
			return nil, nil
		}
	case 'i':
		return strconv.ParseInt(s, 10, 64)
	case 'r':
		return strconv.ParseFloat(s, 64)
	case 't':
		b, err := hex.DecodeString(s)
		return string(b), err
	case 'b':
		return hex.DecodeString(s)
	}
	return nil, errNoLiteral
}
