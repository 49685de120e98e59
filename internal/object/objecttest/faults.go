package objecttest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"etl/internal/fault"
	"etl/internal/object"
)

// Op is one operation that reached a Faults store.
type Op struct {
	N    int        // its number, counted from 1 in the order of arrival
	Name string     // "get", "put", "list" or "delete"
	Key  object.Key // of a list: the prefix
	Cond string     // of a put: "", "if-absent" or "if-match"
}

// String is the operation without its number, for golden traces:
// "put _manifests/2024-01.json if-match".
func (o Op) String() string {
	s := o.Name + " " + string(o.Key)
	if o.Cond != "" {
		s += " " + o.Cond
	}
	return s
}

// Where chooses operations.
type Where func(Op) bool

// At chooses the n-th operation, counted from 1.
func At(n int) Where { return func(o Op) bool { return o.N == n } }

// From chooses the n-th operation and all after it: with Fail, a process that
// loses its store for good.
func From(n int) Where { return func(o Op) bool { return o.N >= n } }

// On chooses by name and key; an empty one stands for all.
func On(name string, key object.Key) Where {
	return func(o Op) bool { return (name == "" || o.Name == name) && (key == "" || o.Key == key) }
}

// First limits w to the first n operations that it chooses.
func First(n int, w Where) Where {
	seen := 0
	return func(o Op) bool {
		if !w(o) {
			return false
		}
		seen++
		return seen <= n
	}
}

// Action takes the place of an operation. do performs the operation itself, as
// often as it is called; the result of the last call is what the caller gets if
// the action returns nil. An action that returns an error withholds the result.
type Action func(ctx context.Context, op Op, do func(context.Context) error) error

// Fail reports an error of kind k and does nothing.
func Fail(k fault.Kind) Action {
	return func(_ context.Context, op Op, _ func(context.Context) error) error {
		return fault.Errorf(k, "%s: injected %s", op, k)
	}
}

// LoseReply does the operation and loses its outcome: a put reports Unknown,
// whatever came of it, a get and a delete Transient, and a list yields all and then a
// Transient error.
func LoseReply() Action {
	return func(ctx context.Context, op Op, do func(context.Context) error) error {
		_ = do(ctx) // lost too
		k := fault.Transient
		if op.Name == "put" {
			k = fault.Unknown
		}
		return fault.Errorf(k, "%s: injected loss of the reply", op)
	}
}

// Hang waits until the context is done, does nothing and returns its error.
func Hang() Action {
	return func(ctx context.Context, op Op, _ func(context.Context) error) error {
		<-ctx.Done()
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
}

// Before calls f and then does the operation: another runner that is a moment faster.
func Before(f func()) Action {
	return func(ctx context.Context, _ Op, do func(context.Context) error) error {
		f()
		return do(ctx)
	}
}

// After does the operation and then calls f, whatever came of the operation.
func After(f func()) Action {
	return func(ctx context.Context, _ Op, do func(context.Context) error) error {
		defer f()
		return do(ctx)
	}
}

// Faults is a store that counts and records the operations on another and
// breaks chosen ones. It is safe for concurrent use; chosen operations are
// numbered one at a time, so a Where needs no lock of its own.
type Faults struct {
	store object.Store

	mu    sync.Mutex
	ops   []Op
	rules []rule
	fired []Op
}

type rule struct {
	where Where
	act   Action
}

var _ object.Store = (*Faults)(nil)

// NewFaults decorates store; until Inject is called nothing fails.
func NewFaults(store object.Store) *Faults { return &Faults{store: store} }

// Inject lets a take the place of the operations that w chooses. Of several
// rules that choose an operation the one injected first acts.
func (f *Faults) Inject(w Where, a Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, rule{w, a})
}

// Reset forgets operations and rules; the store stays as it is.
func (f *Faults) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops, f.rules, f.fired = nil, nil, nil
}

// Count is the number of operations so far.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ops)
}

// Fired lists the operations that an action took the place of. A test that
// injects must see that it is not empty, else it has tested nothing.
func (f *Faults) Fired() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.fired)
}

// Trace lists the operations so far, as Op.String has them.
func (f *Faults) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]string, len(f.ops))
	for i, o := range f.ops {
		out[i] = o.String()
	}
	return out
}

// begin numbers and records an operation and returns what is to take its place.
func (f *Faults) begin(op Op) (Op, Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op.N = len(f.ops) + 1
	f.ops = append(f.ops, op)
	for _, r := range f.rules {
		if r.where(op) {
			f.fired = append(f.fired, op)
			return op, r.act
		}
	}
	return op, func(ctx context.Context, _ Op, do func(context.Context) error) error { return do(ctx) }
}

// Get implements object.Store.
func (f *Faults) Get(ctx context.Context, key object.Key) (data []byte, a object.Attrs, err error) {
	op, act := f.begin(Op{Name: "get", Key: key})
	if err := act(ctx, op, func(ctx context.Context) error {
		data, a, err = f.store.Get(ctx, key)
		return err
	}); err != nil {
		return nil, object.Attrs{}, err
	}
	return data, a, err
}

// Put implements object.Store.
func (f *Faults) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (a object.Attrs, err error) {
	op := Op{Name: "put", Key: key}
	switch {
	case o.IfAbsent:
		op.Cond = "if-absent"
	case o.IfMatch != "":
		op.Cond = "if-match"
	}
	op, act := f.begin(op)
	if err := act(ctx, op, func(ctx context.Context) error {
		a, err = f.store.Put(ctx, key, data, o)
		return err
	}); err != nil {
		return object.Attrs{}, err
	}
	return a, err
}

// Delete implements object.Deleter where the store below does.
func (f *Faults) Delete(ctx context.Context, key object.Key) (err error) {
	op, act := f.begin(Op{Name: "delete", Key: key})
	if err := act(ctx, op, func(ctx context.Context) error {
		err = object.Delete(ctx, f.store, key)
		return err
	}); err != nil {
		return err
	}
	return err
}

// List implements object.Store. Each range over the result is one operation.
func (f *Faults) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		op, act := f.begin(Op{Name: "list", Key: object.Key(prefix)})
		stopped := false
		if err := act(ctx, op, func(ctx context.Context) error {
			for a, err := range f.store.List(ctx, prefix) {
				if err != nil {
					return err
				}
				if !yield(a, nil) {
					stopped = true
					return nil
				}
			}
			return nil
		}); err != nil && !stopped {
			yield(object.Attrs{}, err)
		}
	}
}
