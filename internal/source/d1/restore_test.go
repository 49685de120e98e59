package d1

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"etl/internal/cloudflare/cloudflaretest"
	"etl/internal/fault"
	"etl/internal/sample"
	"etl/internal/source/sourcetest"
)

// someSamples are samples of the points 1 to 5 on d0.
func someSamples(n int) *sample.Batch {
	b := &sample.Batch{}
	for i := range n {
		b.PointID = append(b.PointID, int32(1+i%5))
		b.Append(d0.Start()+int64(i/5), float64(i)+0.1, 192, 0)
	}
	return b
}

// Mantissa and exponent are exact, and small enough for SQLite: a whole number
// of 53 bits and a power of two that is a double.
func TestAppendDouble(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	vs := sourcetest.AwkwardValues()
	var b []byte
	for i := range 5_000_000 + len(vs) {
		v := math.Float64frombits(r.Uint64())
		if i < len(vs) {
			v = vs[i]
		} else if i%4 == 0 {
			v = math.Float64frombits(r.Uint64() >> 12) // a denormal
		}
		b = appendDouble(b[:0], v)
		mantissa, exponent, _ := strings.Cut(string(b), ",")
		m, merr := strconv.ParseInt(mantissa, 10, 64)
		e, eerr := strconv.Atoi(exponent)
		switch {
		case v != v:
			if mantissa != "null" || eerr != nil {
				t.Fatalf("NULL is %s", b)
			}
		case merr != nil || eerr != nil || m > 1<<53 || m < -1<<53:
			t.Fatalf("%x is %s", v, b)
		case math.IsInf(v, 0):
			if e != 1024 || float64(m) != math.Copysign(1, v) {
				t.Fatalf("%g is %s", v, b)
			}
		case e < -1074 || e > 1023 || float64(m)*math.Ldexp(1, e) != v:
			t.Fatalf("%x is %s", v, b)
		}
	}
}

// What is too much for D1 is asked for in smaller parts.
func TestRestoreShrinks(t *testing.T) {
	srv, s := serve(t, schema(), Options{})
	s.sizes.restore = 20
	n := 0
	srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
		if strings.HasPrefix(r.SQL[0], "INSERT") {
			switch n++; n {
			case 2:
				return cloudflaretest.Ran(cloudflaretest.Fails(504, 0, "gateway timeout"))
			case 3:
				return cloudflaretest.Fails(429, 7429, "D1 DB exceeded its CPU time limit and was reset.")
			}
		}
		return nil
	})
	if err := s.Restore(t.Context(), someSamples(50), false); err != nil || n != 4+5 { // 20; 20, 10, 5 of which the last is done; 25 by 5
		t.Errorf("%v in %d statements", err, n)
	}
	srv.On(nil)
	srv.Exec(t, "CREATE TABLE checked (ok CHECK (ok = 1)); INSERT INTO checked SELECT count(*) = 50 FROM timeseries")
}

// A point that was made since the look is a conflict too, and nothing is written.
func TestRestorePointsRace(t *testing.T) {
	for _, other := range []string{"(3, 'other')", "(4, 'c')"} {
		srv, s := serve(t, schema(), Options{})
		srv.On(func(_ int, r cloudflaretest.Request) *cloudflaretest.Fault {
			if strings.HasPrefix(r.SQL[0], "INSERT INTO points") {
				go srv.On(nil)
				srv.Exec(t, "INSERT INTO points (id, name) VALUES "+other)
			}
			return nil
		})
		err := s.RestorePoints(t.Context(), []sample.Point{{ID: 1, Name: "a"}, {ID: 3, Name: "c"}})
		if !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" || !strings.Contains(err.Error(), `"c"`) {
			t.Errorf("%s: %v", other, err)
		}
		srv.Exec(t, "CREATE TABLE checked (ok CHECK (ok = 1)); INSERT INTO checked SELECT count(*) = 1 FROM points")
	}
	_, s := serve(t, schema(), Options{})
	for _, name := range []string{"a\x00b", "a\xffb"} {
		if err := s.RestorePoints(t.Context(), []sample.Point{{ID: 1, Name: "ok"}, {ID: 3, Name: name}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if ps, _, err := s.Points(t.Context()); err != nil || len(ps) != 0 {
		t.Errorf("points %v, %v", ps, err)
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, keep := range []bool{true, false} {
		b.Run(fmt.Sprintf("keep=%t", keep), func(b *testing.B) {
			_, s := serve(b, schema(), Options{})
			batch := &sample.Batch{}
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 144_000 {
				batch.PointID = append(batch.PointID, int32(i/1440))
				batch.Append(d0.Start()+int64(i%1440)*60_000, math.Round(2000+500*r.NormFloat64())/100, 192, 0)
			}
			for b.Loop() {
				for i := range batch.TS { // new ones each time
					batch.TS[i] += 86_400_000
				}
				if err := s.Restore(b.Context(), batch, keep); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(batch.Len())/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
