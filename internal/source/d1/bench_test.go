package d1

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"etl/internal/sample"
)

// answerOf is what D1 sends for a page: 1,440 rows of each point, one a minute,
// 1 of 50 NULL, 1 of 10 with 16 or 17 digits, the others rounded to 0.01.
func answerOf(rows int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := []byte(`{"result":[{"results":{"columns":["p","ts","val","qual","flag"],"rows":[`)
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '[')
		b = strconv.AppendInt(b, int64(1234+i/1440), 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, 1704412800000+int64(i%1440)*60_000, 10)
		b = append(b, ',')
		switch v := 20 + 5*r.NormFloat64(); {
		case i%50 == 0:
			b = append(b, "null"...)
		case i%10 == 0:
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		default:
			b = strconv.AppendFloat(b, math.Round(v*100)/100, 'g', -1, 64)
		}
		b = append(b, ",192,0]"...)
	}
	return append(b, `]},"success":true,"meta":{"served_by":"v3-prod","duration":812.5,"rows_read":500000,"rows_written":0}}],"errors":[],"messages":[],"success":true}`...)
}

// BenchmarkScan reads one answer of 100,000 rows by the scanner of Read, beside
// encoding/json: a Decoder that decodes row by row, and Unmarshal of the whole.
func BenchmarkScan(b *testing.B) {
	const rows = 100_000
	body := answerOf(rows)
	var ids []int32
	for id := int32(1234); id <= 1234+rows/1440; id++ {
		ids = append(ids, id)
	}
	report := func(b *testing.B) {
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("page", func(b *testing.B) {
		p := &page{window: make([]byte, windowBytes), from: 1704412800000, to: 1704499200000}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.scan(bytes.NewReader(body), cursor{ids: ids}, rows); err != nil || p.Len() != rows {
				b.Fatal(p.Len(), err)
			}
		}
		b.SetBytes(int64(len(body)))
		report(b)
	})
	b.Run("json.Decoder", func(b *testing.B) {
		var batch sample.Batch
		for b.Loop() {
			batch.Reset()
			if err := decodeRows(body, &batch); err != nil || batch.Len() != rows {
				b.Fatal(batch.Len(), err)
			}
		}
		report(b)
	})
	b.Run("json.Unmarshal", func(b *testing.B) {
		var batch sample.Batch
		for b.Loop() {
			batch.Reset()
			var answer struct {
				Result []struct {
					Results struct{ Rows [][5]*float64 }
				}
			}
			if err := json.Unmarshal(body, &answer); err != nil {
				b.Fatal(err)
			}
			for _, row := range answer.Result[0].Results.Rows {
				appendRow(&batch, row)
			}
		}
		report(b)
	})
}

// decodeRows reads an answer with a Decoder, token by token up to the rows and
// then a value for each.
func decodeRows(body []byte, batch *sample.Batch) error {
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		if t == "rows" {
			break
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		var row [5]*float64
		if err := d.Decode(&row); err != nil {
			return err
		}
		appendRow(batch, row)
	}
	return nil
}

func appendRow(b *sample.Batch, row [5]*float64) {
	v := sample.Null
	if row[2] != nil {
		v = *row[2]
	}
	b.PointID = append(b.PointID, int32(*row[0]))
	b.Append(int64(*row[1]), v, uint8(*row[3]), uint16(*row[4]))
}
