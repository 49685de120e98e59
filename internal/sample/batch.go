package sample

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Schema is the Arrow schema of an extraction. Quality and flags are as wide as
// their ranges, so that no other value can be held.
var Schema = arrow.NewSchema([]arrow.Field{
	{Name: "point_id", Type: arrow.PrimitiveTypes.Int32},
	{Name: "timestamp", Type: &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}},
	{Name: "value", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
	{Name: "quality", Type: arrow.PrimitiveTypes.Uint8},
	{Name: "flags", Type: arrow.PrimitiveTypes.Uint16},
}, nil)

// Batch is a part of an extraction: samples of any number of points, ordered by
// (point, timestamp), and the rows met on the way that no sample can hold.
// Where a value is NULL the slot of Series.Value holds NaN.
type Batch struct {
	PointID []int32
	Series
	Rejects []Reject
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.PointID = b.PointID[:0]
	b.Series.Reset()
	b.Rejects = b.Rejects[:0]
}

// Record is the batch as an Arrow record of Schema over the same memory, which
// must not change while the record is in use.
func (b *Batch) Record() arrow.RecordBatch {
	n := b.Len()
	valid := make([]byte, bitutil.BytesForBits(int64(n)))
	nulls := 0
	for i, v := range b.Value {
		if v == v {
			bitutil.SetBit(valid, i)
		} else {
			nulls++
		}
	}
	column := func(t arrow.DataType, validity, data []byte, nulls int) arrow.Array {
		var v *memory.Buffer
		if nulls > 0 {
			v = memory.NewBufferBytes(validity)
		}
		d := array.NewData(t, n, []*memory.Buffer{v, memory.NewBufferBytes(data)}, nil, nulls, 0)
		defer d.Release()
		return array.MakeFromData(d)
	}
	cols := []arrow.Array{
		column(Schema.Field(0).Type, nil, arrow.Int32Traits.CastToBytes(b.PointID), 0),
		column(Schema.Field(1).Type, nil, arrow.Int64Traits.CastToBytes(b.TS), 0),
		column(Schema.Field(2).Type, valid, arrow.Float64Traits.CastToBytes(b.Value), nulls),
		column(Schema.Field(3).Type, nil, arrow.Uint8Traits.CastToBytes(b.Quality), 0),
		column(Schema.Field(4).Type, nil, arrow.Uint16Traits.CastToBytes(b.Flags), 0),
	}
	r := array.NewRecordBatch(Schema, cols, int64(n))
	for _, c := range cols {
		c.Release()
	}
	return r
}
