package files

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseValue(t *testing.T) {
	inf := math.Inf(1)
	for text, want := range map[string]float64{
		"0": 0, "-0.0": math.Copysign(0, -1), "1": 1, "+1": 1, " 2.5\t": 2.5, ".5": .5, "5.": 5, "1e3": 1000, "1E-3": .001,
		"4.9e-324": 4.9e-324, "2.2250738585072011e-308": 2.2250738585072011e-308, "1.7976931348623157e308": math.MaxFloat64,
		"9007199254740992": 1 << 53, "-9007199254740992": -1 << 53, "0000000000000000000000007": 7, "9007199254740993.0": 1 << 53, "1e20": 1e20,
		"inf": inf, "Inf": inf, "+INFINITY": inf, "-inf": -inf, "-Infinity": -inf,
		"": math.NaN(), "  ": math.NaN(), "nan": math.NaN(), "NaN": math.NaN(), "-nan": math.NaN(),
	} {
		got, why := parseValue([]byte(text))
		if text == "-nan" { // no sign: Go does not know it
			if why == "" {
				t.Errorf("%q = %v", text, got)
			}
			continue
		}
		if why != "" || bitsOf(got) != bitsOf(want) {
			t.Errorf("%q = %v, %q; want %v", text, got, why, want)
		}
	}
	for _, text := range []string{"9007199254740993", "-9007199254740993", "18014398509481984", "99999999999999999999", "1e309", "-1e309",
		"0x10", "0x1p4", "1_000", "1,5", "one", "NULL", "null", "true", "1 2", "--1", "1e", "e1", "-", "+", ".", "in", "infin", "1\x00", "\xff", "١", "1.5f", "1d"} {
		if v, why := parseValue([]byte(text)); why == "" {
			t.Errorf("%q = %v, want it refused", text, v)
		}
	}
}

// TestValueBits has random doubles survive as every usual program writes them.
func TestValueBits(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200_000 {
		v := math.Float64frombits(r.Uint64())
		if v != v {
			continue
		}
		for _, text := range []string{strconv.FormatFloat(v, 'g', 17, 64), strconv.FormatFloat(v, 'e', -1, 64), strconv.FormatFloat(v, 'f', -1, 64)} {
			if !strings.ContainsAny(text, ".e") {
				text += ".0" // else it is an integer
			}
			if got, why := parseValue([]byte(text)); why != "" || math.Float64bits(got) != math.Float64bits(v) {
				t.Fatalf("%s = %x (%s), want %x", text, got, why, v)
			}
		}
		n := r.Int64() >> r.IntN(60)
		got, why := parseValue([]byte(strconv.FormatInt(n, 10)))
		if exact := n >= -1<<53 && n <= 1<<53; exact != (why == "") || exact && got != float64(n) {
			t.Fatalf("%d = %v, %q", n, got, why)
		}
	}
}

func TestParseTime(t *testing.T) {
	const at = 1704412800000 // 2024-01-05T00:00Z
	for text, want := range map[string]int64{
		"1704412800000": at, " 1704412800000 ": at, "-5": -5, "0": 0, "1704412800": 1704412800,
		"2024-01-05T00:00:00Z": at, "2024-01-05 00:00:00Z": at, "2024-01-05T00:00:00.5Z": at + 500, "2024-01-05T00:00:00.123Z": at + 123,
		"2024-01-05T00:00:00.123000Z": at + 123, "2024-01-05T01:00:00+01:00": at, "2024-01-04 18:30:00-0530": at, "2024-01-05 01:00:00+01": at,
		"2024-02-29T00:00:00Z": at + 55*86400_000, "1970-01-01T00:00:00Z": 0,
	} {
		if got, why := parseTime([]byte(text)); why != "" || got != want {
			t.Errorf("%q = %d, %q; want %d", text, got, why, want)
		}
	}
	for text, want := range map[string]string{
		"": "empty", " ": "empty", "2024-01-05T00:00:00": "no zone", "2024-01-05 00:00:00.5": "no zone", "2024-01-05": "neither", "noon": "neither", "1.7e12": "neither", "1704412800000.0": "neither",
		"2024-01-05T00:00:00.1234Z": "finer", "2023-02-29T00:00:00Z": "there is", "2024-13-01T00:00:00Z": "there is", "2024-01-05T24:00:00Z": "there is", "2024-01-05T00:00:60Z": "there is",
		"2024-01-05T00:00:00+1:00": "neither", "2024-01-05T00:00:00+24:00": "neither", "2024-01-05T00:00:00.Z": "neither", "2024-01-05T00:00:00z": "neither",
		"99999999999999999999": "no number", "-": "neither", "--5": "neither", "2024-01-05T00:00:00 UTC": "neither", "2024-01-05T00:00:00Zx": "neither", "+5": "neither",
	} {
		if ms, why := parseTime([]byte(text)); !strings.Contains(why, want) || why == "" {
			t.Errorf("%q = %d, %q; want %q", text, ms, why, want)
		}
	}
}

// FuzzParseTime compares with package time.
func FuzzParseTime(f *testing.F) {
	f.Add("2024-01-05T00:00:00.123Z", int64(1704412800123), int16(90))
	f.Add("1704412800000", int64(-1), int16(-720))
	f.Fuzz(func(t *testing.T, text string, ms int64, minutes int16) {
		if got, why := parseTime([]byte(text)); why == "" && strings.Contains(text, "T") && strings.Contains(text[19:], ":") {
			if want, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(text)); err != nil || want.UnixMilli() != got {
				t.Fatalf("%q = %d, want %s, %v", text, got, want, err)
			}
		}
		at := time.UnixMilli(ms % 253402300800000).In(time.FixedZone("", int(minutes%1440)*60))
		if y := at.Year(); y < 0 || y > 9999 {
			return
		}
		for _, layout := range []string{"2006-01-02T15:04:05.000Z07:00", "2006-01-02 15:04:05.999999-07:00", "2006-01-02T15:04:05.000000000-0700"} {
			if got, why := parseTime([]byte(at.Format(layout))); why != "" || got != at.UnixMilli() {
				t.Fatalf("%s = %d, %q; want %d", at.Format(layout), got, why, at.UnixMilli())
			}
		}
	})
}
