package source_test

import (
	"context"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"etl/internal/cloudflare"
	"etl/internal/sample"
	"etl/internal/source"
	"etl/internal/source/d1"
	"etl/internal/source/sqlite"
	"etl/internal/timing"
	"etl/internal/utc"
)

// TestTimedOffersAll: a source that is timed offers every method of the one below:
// a type assertion finds what it found before.
func TestTimedOffersAll(t *testing.T) {
	lite, err := sqlite.Open(filepath.Join(t.TempDir(), "d1.sqlite"), sqlite.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	c, err := cloudflare.New("account", "token", cloudflare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []source.Database{lite, d1.Open(c.Database("x"), d1.Options{})} {
		if source.Timed(db, nil) != db {
			t.Errorf("%T is wrapped though nothing is recorded", db)
		}
		below, timed := reflect.TypeOf(db), reflect.TypeOf(source.Timed(db, timing.New()))
		for i := range below.NumMethod() {
			m := below.Method(i)
			if m.Name == "Load" {
				continue // of the package itself: nobody asserts it
			}
			if got, ok := timed.MethodByName(m.Name); !ok || got.Type.NumIn() != m.Type.NumIn() {
				t.Errorf("%s.%s is lost when it is timed: add it to source.Database, or to billed", below, m.Name)
			}
		}
		for i := range timed.NumMethod() {
			if name := timed.Method(i).Name; !hasMethod(below, name) {
				t.Errorf("%s does not have %s, and says so when it is timed", below, name)
			}
		}
	}
}

func hasMethod(t reflect.Type, name string) bool {
	_, ok := t.MethodByName(name)
	return ok
}

// slow delivers a batch after a while.
type slow struct{ source.Database }

func (slow) Read(_ context.Context, _ source.Query, f func(*sample.Batch) error) (source.Stats, error) {
	time.Sleep(20 * time.Millisecond)
	return source.Stats{}, f(new(sample.Batch))
}

func (slow) Info(context.Context) (source.Info, error) {
	time.Sleep(20 * time.Millisecond)
	return source.Info{}, nil
}

// TestTimedLeavesOutTheCaller: what is done with the rows is not the source's time.
func TestTimedLeavesOutTheCaller(t *testing.T) {
	rec := timing.New()
	s := source.Timed(slow{}, rec)
	for range 2 {
		if _, err := s.Read(t.Context(), source.Query{Days: utc.Days{}}, func(*sample.Batch) error {
			time.Sleep(300 * time.Millisecond)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := rec.Spans()
	if len(spans) != 2 || spans[0].Kind != timing.SourceRead || spans[0].Calls != 2 || spans[0].Seconds < 0.04 || spans[0].Seconds > 0.3 ||
		spans[1].Kind != timing.SourceOther || spans[1].Seconds < 0.02 {
		t.Errorf("%+v", spans)
	}
}
