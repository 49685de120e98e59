package files

import (
	"io"

	"golang.org/x/sync/errgroup"
)

// ahead reads its input in a goroutine, so that a file is unpacked while what
// came before is parsed.
type ahead struct {
	full, free chan chunk
	stopped    chan struct{} // closed by stop
	reading    errgroup.Group
	cur        chunk
	rest       []byte // of cur
}

type chunk struct {
	buf []byte
	n   int
	err error // behind the n bytes
}

func readAhead(in io.Reader) *ahead {
	const chunks, size = 3, 256 << 10
	a := &ahead{full: make(chan chunk, chunks), free: make(chan chunk, chunks), stopped: make(chan struct{})}
	for range chunks {
		a.free <- chunk{buf: make([]byte, size)}
	}
	a.reading.Go(func() error { a.run(in); return nil })
	return a
}

func (a *ahead) run(in io.Reader) {
	for {
		select {
		case <-a.stopped:
			return
		case c := <-a.free:
			c.n, c.err = 0, nil
			for c.n < len(c.buf) && c.err == nil {
				var n int
				n, c.err = in.Read(c.buf[c.n:])
				c.n += n
			}
			a.full <- c // it has room for all chunks
			if c.err != nil {
				return
			}
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(b []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur
		}
		a.cur = <-a.full
		a.rest = a.cur.buf[:a.cur.n]
	}
	n := copy(b, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the reading; the input can be closed after it.
func (a *ahead) stop() {
	close(a.stopped)
	_ = a.reading.Wait()
}
