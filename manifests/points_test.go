package manifests

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"etl/internal/fault"
	"etl/internal/object"
	"etl/internal/sample"
)

func exampleCatalog() *Catalog {
	return &Catalog{Format: PointsFormat, Version: PointsVersion, SourceID: "9b2c", Points: []sample.Point{
		{ID: 1, Name: "AHU-1 <SAT> °C", Site: new("West"), System: new("Air"), Equipment: new("AHU-1"), Unit: new("°C"),
			IntervalMS: new(int64(5000)), MinValue: new(-40.5), MaxValue: new(1e21), CreatedAt: new(int64(1700000000000))},
		{ID: 2, Name: "point-2"},
		{ID: 5, Name: "", IntervalMS: new(int64(0))},
	}}
}

func TestPointsGolden(t *testing.T) {
	data, err := EncodePoints(exampleCatalog())
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodePoints(golden(t, "points.json", data))
	if err != nil || !reflect.DeepEqual(got, exampleCatalog()) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestDecodePointsRefuses(t *testing.T) {
	good, err := EncodePoints(exampleCatalog())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{"etl-points", "etl-manifest", `format is "etl-manifest"`},
		{`"version":1`, `"version":0`, "no version 0"},
		{`"points":[`, `"point":[`, "no list of points"},
		{`{"id":2,`, `{"id":1,`, "point 1 follows point 1"},
		{`{"id":2,`, `{"id":6,`, "point 5 follows point 6"},
		{`1e+21`, `1e999`, "cannot unmarshal"},
		{`"name":"point-2"`, `"name":2`, "cannot unmarshal"},
	} {
		data := strings.Replace(string(good), c.from, c.to, 1)
		if _, err := DecodePoints([]byte(data)); !fault.Is(err, fault.Corrupt) || !strings.Contains(err.Error(), c.want) || fault.HintOf(err) == "" {
			t.Errorf("%s → %s: %v", c.from, c.to, err)
		}
	}
	for _, data := range []string{strings.Replace(string(good), `"version":1`, `"version":3`, 1), `{"format":"etl-points","version":3,"points":{}}`} {
		if _, err := DecodePoints([]byte(data)); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "refused: version 3, this etl reads version 1") {
			t.Error(err)
		}
	}
}

func TestRegister(t *testing.T) {
	f := newFake()
	register := func(id string, adopt bool, wrote int, points ...sample.Point) *Catalog {
		t.Helper()
		before := f.count("put")
		c, err := Register(t.Context(), f, id, points, adopt)
		if err != nil {
			t.Fatal(err)
		}
		if n := f.count("put") - before; n != wrote {
			t.Fatalf("wrote %d times, want %d", n, wrote)
		}
		if got, _, err := LoadPoints(t.Context(), f); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v, stored %+v, %v", c, got, err)
		}
		return c
	}
	register("", false, 0)
	odd := sample.Point{ID: 3, Name: "c\xff<", Site: new("s\xfe\xff"), MinValue: new(math.Inf(-1)), MaxValue: new(5.0)}
	orphan := sample.Point{ID: 9, Name: "point-9", Orphan: true}
	register("", false, 1, odd, sample.Point{ID: 1, Name: "a"})
	if *odd.Site != "s\xfe\xff" || odd.MinValue == nil {
		t.Fatal("the caller's point was changed")
	}
	register("X", false, 1, odd, orphan)
	register("X", false, 0, orphan, odd, sample.Point{ID: 1, Name: "a"})
	c := register("X", false, 0)
	if len(c.Points) != 3 || c.Points[0].ID != 1 || c.Points[1].Name != "c\ufffd<" || c.Points[1].MinValue != nil || c.Points[2].Name != "point-9" {
		t.Fatalf("%+v", c.Points)
	}
	register("X", false, 1, sample.Point{ID: 9, Name: "nine", Unit: new("kW")})
	register("X", false, 0, orphan)
	register("X", false, 1, sample.Point{ID: 9, Name: "neuf", Unit: new("kW")}, sample.Point{ID: 1, Name: "a", IntervalMS: new(int64(0))})

	for _, id := range []string{"Y", ""} {
		_, err := Register(t.Context(), f, id, nil, false)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "this cold tier belongs to source X, this source is ") || !strings.Contains(fault.HintOf(err), "--adopt") {
			t.Fatal(err)
		}
	}
	if c := register("Y", true, 1, sample.Point{ID: 4, Name: "d"}); c.SourceID != "Y" || len(c.Points) != 4 {
		t.Fatalf("%+v", c)
	}
	register("Y", false, 0)

	f.objects[PointsKey] = version{[]byte("[]"), "x"}
	if _, err := Register(t.Context(), f, "Y", nil, true); !fault.Is(err, fault.Corrupt) {
		t.Fatal(err)
	}
}

// Registrations side by side, with lost requests and replies, lose no point.
func TestRegisterConcurrently(t *testing.T) {
	for _, lost := range []string{"", "request", "reply"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			n, inside := 0, false
			f.before = func(op string, _ object.Key) error {
				if op != "put" || inside {
					return nil
				}
				n++
				if n <= 3 {
					inside = true
					defer func() { inside = false }()
					if _, err := Register(t.Context(), f, "X", []sample.Point{{ID: int32(10 - n), Name: "other"}}, false); err != nil {
						t.Error(err)
					}
				} else if n == 4 && lost == "request" {
					return errLost
				}
				return nil
			}
			f.after = func(object.Key, []byte, []byte) error {
				if n == 4 && lost == "reply" {
					return errLost
				}
				return nil
			}
			c, err := Register(t.Context(), f, "X", []sample.Point{{ID: 1, Name: "mine"}}, false)
			if want := map[string]int{"": 4, "request": 5, "reply": 4}[lost]; err != nil || len(c.Points) != 4 || n != want {
				t.Fatalf("%s: %+v %v after %d writes", lost, c, err, n)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.before = func(op string, k object.Key) error {
			if op == "put" {
				return fault.Errorf(fault.Conflict, "put %s: another version", k)
			}
			return nil
		}
		if _, err := Register(t.Context(), f, "X", nil, false); !fault.Is(err, fault.Transient) || !strings.Contains(err.Error(), "gave up after 10 attempts") {
			t.Fatal(err)
		}
	})
}

// TestUnionModel holds a sequence of registrations against a map.
func TestUnionModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := newFake()
	model := map[int32]sample.Point{}
	for range 300 {
		var points []sample.Point
		for id := range int32(20) {
			if rnd.IntN(3) > 0 {
				continue
			}
			p := sample.Point{ID: id, Name: []string{"a", "b\xff", "<c>", "d\u2028", ""}[rnd.IntN(5)]}
			if rnd.IntN(3) == 0 {
				p = sample.Point{ID: id, Name: orphanName(id), Orphan: true}
			} else if rnd.IntN(2) == 0 {
				p.MaxValue = new(rnd.NormFloat64())
			}
			points = append(points, p)
			if _, known := model[id]; !known || !p.Orphan {
				p.Name, p.Orphan = Clean(p.Name), false
				model[id] = p
			}
		}
		c, err := Register(t.Context(), f, "X", points, false)
		if err != nil || len(c.Points) != len(model) {
			t.Fatal(c, err)
		}
		for _, p := range c.Points {
			if !reflect.DeepEqual(p, model[p.ID]) {
				t.Fatalf("%+v, want %+v", p, model[p.ID])
			}
		}
		puts := f.count("put")
		if _, err := Register(t.Context(), f, "X", points, false); err != nil || f.count("put") != puts {
			t.Fatal("the same again wrote", err)
		}
	}
}

func FuzzDecodePoints(f *testing.F) {
	good, err := EncodePoints(exampleCatalog())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":"etl-points","version":1,"points":[{"id":1,"name":"\udc00","min_value":-0}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodePoints(data)
		if err != nil {
			return
		}
		b, err := EncodePoints(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodePoints(b)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v\n%+v\n%v", c, again, err)
		}
	})
}

func BenchmarkRegister(b *testing.B) {
	f := newFake()
	var points []sample.Point
	for _, e := range big(10_000).Points {
		points = append(points, sample.Point{ID: e.ID, Name: e.Name, Site: new("Campus West"), Unit: new("°C"), IntervalMS: new(int64(5000))})
	}
	for b.Loop() {
		if _, err := Register(b.Context(), f, "X", points, false); err != nil {
			b.Fatal(err)
		}
	}
}
