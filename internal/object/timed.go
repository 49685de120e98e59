package object

import (
	"context"
	"iter"
	"time"

	"etl/internal/timing"
)

// Timed returns a store that records how long each operation of s takes, and how
// many bytes it moves; s itself if rec is nil. It can what s can. Of a List only the
// time is counted that it took, not what was done with the objects.
func Timed(s Store, rec *timing.Recorder) Store {
	if rec == nil {
		return s
	}
	t := &timed{s, rec}
	if l, ok := s.(Linker); ok {
		return &timedLinker{t, l}
	}
	return t
}

type timed struct {
	store Store
	rec   *timing.Recorder
}

func (t *timed) Get(ctx context.Context, key Key) ([]byte, Attrs, error) {
	start := time.Now()
	data, a, err := t.store.Get(ctx, key)
	t.rec.Add(timing.Get, time.Since(start), int64(len(data)))
	return data, a, err
}

func (t *timed) Put(ctx context.Context, key Key, data []byte, o PutOptions) (Attrs, error) {
	start := time.Now()
	a, err := t.store.Put(ctx, key, data, o)
	t.rec.Add(timing.Put, time.Since(start), int64(len(data)))
	return a, err
}

func (t *timed) Delete(ctx context.Context, key Key) error {
	defer t.rec.End(timing.Delete, time.Now())
	return Delete(ctx, t.store, key)
}

func (t *timed) List(ctx context.Context, prefix string) iter.Seq2[Attrs, error] {
	return t.list(t.store.List(ctx, prefix))
}

// ListAfter is what the store below has of it.
func (t *timed) ListAfter(ctx context.Context, prefix string, after Key) iter.Seq2[Attrs, error] {
	return t.list(listAfter(ctx, t.store, prefix, after))
}

func (t *timed) list(seq iter.Seq2[Attrs, error]) iter.Seq2[Attrs, error] {
	return func(yield func(Attrs, error) bool) {
		var took time.Duration
		start := time.Now()
		for a, err := range seq {
			took += time.Since(start)
			if !yield(a, err) {
				start = time.Now()
				break
			}
			start = time.Now()
		}
		t.rec.Add(timing.List, took+time.Since(start), 0)
	}
}

type timedLinker struct {
	*timed
	linker Linker
}

// Link makes links; nothing is read.
func (t *timedLinker) Link(ctx context.Context, keys []Key, to []string) []error {
	return t.linker.Link(ctx, keys, to)
}
