package object

import (
	"context"
	"iter"

	"etl/internal/fault"
)

// Retry returns a store that repeats by the policy what failed with a Transient
// error, and nothing else: Conflict and Unknown are for the caller, who has to
// read again before it knows what to do.
//
// To repeat a Put is safe, and its condition stays the same in each attempt: a
// Transient error of a Put says that nothing was written, so no attempt can
// meet an earlier one's success. A conflict is always with another writer.
//
// A listing that breaks off goes on after the last key that was yielded, so
// each key comes at most once and in order. The policy applies to each object
// of it, so that a long one which proceeds is not given up on, and what the
// caller does between two objects takes no part of the budget.
//
// Retry goes around Pace, so that repeated writes are paced too.
func Retry(s Store, p fault.Policy) Store { return &retry{s, p} }

// AfterLister is a Store that can begin a listing elsewhere than at its start.
type AfterLister interface {
	Store
	// ListAfter is List without the keys up to and including after, whether
	// that one exists or not; "" is before all keys.
	ListAfter(ctx context.Context, prefix string, after Key) iter.Seq2[Attrs, error]
}

// listAfter is ListAfter where s has it. Elsewhere it is List: what comes
// before has to be passed over.
func listAfter(ctx context.Context, s Store, prefix string, after Key) iter.Seq2[Attrs, error] {
	if l, ok := s.(AfterLister); ok {
		return l.ListAfter(ctx, prefix, after)
	}
	return s.List(ctx, prefix)
}

type retry struct {
	store  Store
	policy fault.Policy
}

func (r *retry) Get(ctx context.Context, key Key) (data []byte, a Attrs, err error) {
	err = r.policy.Do(ctx, "get "+string(key), func(ctx context.Context) error {
		data, a, err = r.store.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, Attrs{}, err
	}
	return data, a, nil
}

func (r *retry) Put(ctx context.Context, key Key, data []byte, o PutOptions) (a Attrs, err error) {
	err = r.policy.Do(ctx, "put "+string(key), func(ctx context.Context) error {
		a, err = r.store.Put(ctx, key, data, o)
		return err
	})
	if err != nil {
		return Attrs{}, err
	}
	return a, nil
}

func (r *retry) Delete(ctx context.Context, key Key) error {
	return r.policy.Do(ctx, "delete "+string(key), func(ctx context.Context) error { return Delete(ctx, r.store, key) })
}

func (r *retry) List(ctx context.Context, prefix string) iter.Seq2[Attrs, error] {
	return func(yield func(Attrs, error) bool) {
		var next func() (Attrs, error, bool)
		stop := func() {}
		defer func() { stop() }()
		var last Key // that was yielded
		for {
			var a Attrs
			var more bool
			err := r.policy.Do(ctx, "list "+prefix, func(ctx context.Context) error {
				if next == nil {
					next, stop = iter.Pull2(listAfter(ctx, r.store, prefix, last))
				}
				for {
					var err error
					a, err, more = next()
					if err != nil {
						stop()
						next = nil
						return err
					}
					if !more || a.Key > last {
						return nil
					}
				}
			})
			if err != nil {
				yield(Attrs{}, err)
				return
			}
			if !more {
				return
			}
			last = a.Key
			if !yield(a, nil) {
				return
			}
		}
	}
}
