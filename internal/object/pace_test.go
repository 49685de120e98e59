package object

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

type nowhere struct{ Store }

func (nowhere) Put(context.Context, Key, []byte, PutOptions) (Attrs, error) { return Attrs{}, nil }

// TestPaceForgets writes many keys and holds few.
func TestPaceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pace(nowhere{}, time.Second).(*paced)
		most := 0
		for i := range 100_000 {
			if _, err := p.Put(t.Context(), Key(fmt.Sprint(i)), nil, PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if i%1000 == 0 {
				most = max(most, len(p.lanes))
				time.Sleep(100 * time.Millisecond)
			}
		}
		// 10,000 keys a second, held for two.
		if most > 20_001+1000 {
			t.Errorf("%d keys are held at once", most)
		}
		time.Sleep(time.Second)
		p.Put(t.Context(), "last", nil, PutOptions{})
		if len(p.lanes) > 1001 {
			t.Errorf("%d keys are held in the end", len(p.lanes))
		}
	})
}
