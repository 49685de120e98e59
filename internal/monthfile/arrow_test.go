package monthfile

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"etl/internal/sample"
)

// TestArrowReads has arrow-go read every shape of file, bit for bit, with its
// statistics and sorting columns.
func TestArrowReads(t *testing.T) {
	files := readerFiles(t)
	for _, codec := range []Codec{Zstd, Snappy} {
		for name, path := range writeFiles(t, files, Options{Codec: codec}) {
			f := files[name]
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			r, err := file.NewParquetReader(bytes.NewReader(data))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			fr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			table, err := fr.ReadTable(context.Background())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var got sample.Series
			tr := array.NewTableReader(table, 0)
			for tr.Next() {
				rec := tr.RecordBatch()
				id, ts := rec.Column(0).(*array.Int32), rec.Column(1).(*array.Timestamp)
				v, q, fl := rec.Column(2).(*array.Float64), rec.Column(3).(*array.Int32), rec.Column(4).(*array.Int32)
				for i := range int(rec.NumRows()) {
					x := v.Value(i)
					if v.IsNull(i) {
						x = sample.Null
					}
					if id.Value(i) != f.meta.PointID {
						t.Fatalf("%s: point %d", name, id.Value(i))
					}
					got.Append(int64(ts.Value(i)), x, uint8(q.Value(i)), uint16(fl.Value(i)))
				}
			}
			tr.Release()
			table.Release()
			if !got.Equal(&f.series) {
				t.Errorf("%s, %v: arrow-go reads other rows, %d of %d", name, codec, got.Len(), f.series.Len())
			}
			row := 0
			for g := range r.NumRowGroups() {
				md := r.MetaData().RowGroup(g)
				if sorted := md.SortingColumns(); len(sorted) != 1 || sorted[0].ColumnIdx != colTime || sorted[0].Descending {
					t.Errorf("%s: sorting columns %v", name, sorted)
				}
				c, err := md.ColumnChunk(colTime)
				if err != nil {
					t.Fatal(err)
				}
				st, err := c.Statistics()
				if err != nil || st == nil {
					t.Fatalf("%s: statistics %v, %v", name, st, err)
				}
				last := row + int(md.NumRows()) - 1
				if ts := st.(*metadata.Int64Statistics); ts.Min() != f.series.TS[row] || ts.Max() != f.series.TS[last] || !ts.HasNullCount() {
					t.Errorf("%s: timestamps from %d to %d in the statistics", name, ts.Min(), ts.Max())
				}
				row = last + 1
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
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
