package monthfile

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"etl/internal/sample"
	"etl/internal/utc"
)

// kinds are generators of values as points have them: each returns the next value.
var kinds = map[string]func(*rand.Rand) func() float64{
	"temperature": func(r *rand.Rand) func() float64 { // random walk, resolution 0.1 °
		v := 215
		return func() float64 {
			v += r.IntN(3) - 1
			return float64(v) / 10
		}
	},
	"counter": func(r *rand.Rand) func() float64 { // energy meter, kWh
		v := 120_000.0
		return func() float64 {
			v += float64(r.IntN(40)) / 100
			return math.Round(v*100) / 100
		}
	},
	"onoff": func(r *rand.Rand) func() float64 {
		v := 0.0
		return func() float64 {
			if r.IntN(90) == 0 {
				v = 1 - v
			}
			return v
		}
	},
	"setpoint": func(r *rand.Rand) func() float64 {
		v := 21.0
		return func() float64 {
			if r.IntN(2000) == 0 {
				v = 18 + float64(r.IntN(10))/2
			}
			return v
		}
	},
	"noise": func(r *rand.Rand) func() float64 { // all 53 bits
		return func() float64 { return 50 + r.NormFloat64() }
	},
}

var kindNames = []string{"temperature", "counter", "onoff", "setpoint", "noise"}

var benchMonth = utc.MonthOf(2024, 4) // 30 days

// kindSeries are n samples of a kind, every 60 s from the start of benchMonth.
func kindSeries(kind string, n int) (Meta, sample.Series) {
	next := kinds[kind](rand.New(rand.NewPCG(1, uint64(len(kind)))))
	var s sample.Series
	for i := range n {
		s.Append(benchMonth.First().Start()+int64(i)*60_000, next(), 192, 0)
	}
	return metaOf(7, "building-1/ahu-1/"+kind, benchMonth, &s), s
}

func eachKind(b *testing.B, f func(b *testing.B, m []Meta, s []sample.Series, rows int)) {
	for _, n := range []int{1440, 43200} {
		var ms []Meta
		var ss []sample.Series
		for _, kind := range kindNames {
			m, s := kindSeries(kind, n)
			ms, ss = append(ms, m), append(ss, s)
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) { f(b, []Meta{m}, []sample.Series{s}, n) })
		}
		// One operation is one file of each kind.
		b.Run(fmt.Sprintf("mix/%d", n), func(b *testing.B) { f(b, ms, ss, n*len(ms)) })
	}
}

func report(b *testing.B, rows, bytes int) {
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
	b.ReportMetric(float64(bytes)/float64(rows), "B/row")
}

func BenchmarkEncode(b *testing.B) {
	eachKind(b, func(b *testing.B, ms []Meta, ss []sample.Series, rows int) {
		e := NewEncoder(Options{})
		var buf []byte
		size := 0
		b.ReportAllocs()
		for b.Loop() {
			size = 0
			for i := range ms {
				var err error
				if buf, _, err = e.Encode(buf[:0], ms[i], &ss[i]); err != nil {
					b.Fatal(err)
				}
				size += len(buf)
			}
		}
		report(b, rows, size)
	})
}

func benchDecode(b *testing.B, decode func(*Decoder, []byte, *sample.Series) (Info, error)) {
	eachKind(b, func(b *testing.B, ms []Meta, ss []sample.Series, rows int) {
		var files [][]byte
		size := 0
		for i := range ms {
			data, _, err := NewEncoder(Options{}).Encode(nil, ms[i], &ss[i])
			if err != nil {
				b.Fatal(err)
			}
			files = append(files, data)
			size += len(data)
		}
		d := NewDecoder()
		var s sample.Series
		b.ReportAllocs()
		for b.Loop() {
			for _, data := range files {
				if _, err := decode(d, data, &s); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b, rows, size)
	})
}

func BenchmarkDecode(b *testing.B)        { benchDecode(b, (*Decoder).Decode) }
func BenchmarkDecodeTrusted(b *testing.B) { benchDecode(b, (*Decoder).DecodeTrusted) }

func BenchmarkInspect(b *testing.B) {
	m, s := kindSeries("temperature", 43200)
	data, _, err := NewEncoder(Options{}).Encode(nil, m, &s)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Inspect(data); err != nil {
			b.Fatal(err)
		}
	}
}
