package monthfile

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/utc"
)

// factsKey is the key of the footer's key/value metadata that holds the facts.
const factsKey = "etl"

// appendFacts appends the facts as a JSON object, as short as it can be: small
// files are little but footer. Runs of equal days are written [count, days].
func appendFacts(b []byte, m *Meta, rowsSHA256 string) []byte {
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, Version, 10)
	b = append(b, `,"id":`...)
	b = strconv.AppendInt(b, int64(m.PointID), 10)
	b = append(b, `,"name":`...)
	b = sample.AppendJSONString(b, m.PointName)
	b = append(b, `,"month":"`...)
	b = append(b, m.Month.String()...)
	b = append(b, `","days":[`...)
	for i := 0; i < len(m.Days); {
		j := i + 1
		for j < len(m.Days) && m.Days[j] == m.Days[i] {
			j++
		}
		one := appendDay(nil, m.Days[i])
		run := fmt.Appendf(nil, "[%s,%d]", one, j-i)
		if plain := (j-i)*(len(one)+1) - 1; plain <= len(run) {
			run = one
			for range j - i - 1 {
				run = append(append(run, ','), one...)
			}
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, run...)
		i = j
	}
	b = append(b, `],"rows_sha256":"`...)
	b = append(b, rowsSHA256...)
	return append(b, `"}`...)
}

func appendDay(b []byte, n int32) []byte {
	if n == sample.NotArchived {
		return append(b, "null"...)
	}
	return strconv.AppendInt(b, int64(n), 10)
}

// parseFacts reads the facts. Fields that it does not know are ignored; those
// that it knows must be there and in range.
func parseFacts(b []byte) (m Meta, rowsSHA256 string, err error) {
	var version struct {
		V *int64 `json:"v"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return m, "", corrupt("facts: %w", err)
	}
	if version.V == nil {
		return m, "", corrupt("facts: no version")
	}
	if *version.V < Version {
		return m, "", corrupt("facts: there is no version %d", *version.V)
	}
	if *version.V > Version {
		err := fault.Wrap(fault.Invalid, &VersionError{*version.V})
		return m, "", fault.Hint(err, "a newer etl wrote this file: upgrade this one")
	}
	var f struct {
		ID    *int32            `json:"id"`
		Name  *string           `json:"name"`
		Month *utc.Month        `json:"month"`
		Days  []json.RawMessage `json:"days"`
		Rows  string            `json:"rows_sha256"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return m, "", corrupt("facts: %w", err)
	}
	if f.ID == nil || f.Name == nil || f.Month == nil {
		return m, "", corrupt("facts: id, name or month is missing")
	}
	if !sample.IsSHA256(f.Rows) {
		return m, "", corrupt("facts: rows_sha256 %.80q is not 64 lower-case hex digits", f.Rows)
	}
	m = Meta{PointID: *f.ID, PointName: *f.Name, Month: *f.Month}
	m.Days, err = parseDays(f.Days, m.Month.Len())
	return m, f.Rows, err
}

// parseDays reads the entries of the day array, each a count for one day or
// [count, days], into a month of n days.
func parseDays(raw []json.RawMessage, n int) (sample.DayCounts, error) {
	days := make(sample.DayCounts, 0, n)
	for _, r := range raw {
		var count *int64
		run := int64(1)
		var err error
		if len(r) > 0 && r[0] == '[' {
			var pair []*int64
			if err = json.Unmarshal(r, &pair); err == nil && (len(pair) != 2 || pair[1] == nil) {
				err = fmt.Errorf("%.40q is not [count, days]", r)
			} else if err == nil {
				count, run = pair[0], *pair[1]
			}
		} else {
			err = json.Unmarshal(r, &count)
		}
		if err != nil {
			return nil, corrupt("facts: days: %w", err)
		}
		if run < 1 || run > int64(n-len(days)) || count != nil && (*count < 0 || *count > math.MaxInt32) {
			return nil, corrupt("facts: days: %.40q does not fit a month of %d days", r, n)
		}
		for range run {
			if count == nil {
				days = append(days, sample.NotArchived)
			} else {
				days = append(days, int32(*count))
			}
		}
	}
	if len(days) != n {
		return nil, corrupt("facts: %d days in a month of %d", len(days), n)
	}
	return days, nil
}
