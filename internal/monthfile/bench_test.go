package monthfile

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

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

// arrowSchema is the schema of a month file as arrow-go sees it.
var arrowSchema = arrow.NewSchema([]arrow.Field{
	{Name: "point_id", Type: arrow.PrimitiveTypes.Int32},
	{Name: "timestamp", Type: &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}},
	{Name: "value", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "quality", Type: arrow.PrimitiveTypes.Int32},
	{Name: "flags", Type: arrow.PrimitiveTypes.Int32},
}, nil)

// arrowEncode writes the samples with arrow-go, with the encodings that suit most points.
func arrowEncode(b *testing.B, m Meta, s *sample.Series) []byte {
	rb := array.NewRecordBuilder(memory.DefaultAllocator, arrowSchema)
	defer rb.Release()
	for i, ts := range s.TS {
		rb.Field(0).(*array.Int32Builder).Append(m.PointID)
		rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(ts))
		rb.Field(2).(*array.Float64Builder).Append(s.Value[i])
		rb.Field(3).(*array.Int32Builder).Append(int32(s.Quality[i]))
		rb.Field(4).(*array.Int32Builder).Append(int32(s.Flags[i]))
	}
	rec := rb.NewRecordBatch()
	defer rec.Release()
	var buf bytes.Buffer
	w, err := pqarrow.NewFileWriter(arrowSchema, &buf, parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithDictionaryFor("timestamp", false),
		parquet.WithEncodingFor("timestamp", parquet.Encodings.DeltaBinaryPacked)), pqarrow.DefaultWriterProps())
	if err != nil {
		b.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// BenchmarkArrowEncode and BenchmarkArrowDecode are the baseline: the same rows through arrow-go.
func BenchmarkArrowEncode(b *testing.B) {
	eachKind(b, func(b *testing.B, ms []Meta, ss []sample.Series, rows int) {
		size := 0
		b.ReportAllocs()
		for b.Loop() {
			size = 0
			for i := range ms {
				size += len(arrowEncode(b, ms[i], &ss[i]))
			}
		}
		report(b, rows, size)
	})
}

func BenchmarkArrowDecode(b *testing.B) {
	eachKind(b, func(b *testing.B, ms []Meta, ss []sample.Series, rows int) {
		var files [][]byte
		size := 0
		for i := range ms {
			files = append(files, arrowEncode(b, ms[i], &ss[i]))
			size += len(files[i])
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, data := range files {
				r, err := file.NewParquetReader(bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				fr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
				if err != nil {
					b.Fatal(err)
				}
				t, err := fr.ReadTable(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				t.Release()
			}
		}
		report(b, rows, size)
	})
}
