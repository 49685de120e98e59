package lake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"etl/internal/fault"
	"etl/internal/monthfile"
	"etl/internal/object"
	"etl/internal/sample"
	"etl/internal/utc"
	"etl/manifests"
)

// File is one month file as the catalog names it.
type File struct {
	Month              utc.Month
	Point              int32
	Key                object.Key
	Bytes              int64
	ETag               string
	SHA256, RowsSHA256 string
}

// Local is a verified local copy of a month file.
type Local struct {
	Path string
	// Pending: the object is whole, but newer than the manifest.
	Pending bool
}

// errStale says that a manifest has changed since the catalog was made: list
// again and plan again.
var errStale = fault.Errorf(fault.Transient, "the manifests changed while month files were being fetched")

// Fetch returns a verified local path for each file, in order, from the cache
// or the store, at most workers at once. The paths stay until Close and show
// the same bytes until then. notify, which may be nil, is told, never by two
// goroutines at once, how many files had to be fetched (or, of a directory
// store, read and verified) so far, and their bytes.
//
// A file counts by its SHA-256. If the object has another one, the month's
// manifest is read again, once a call: if it no longer names the file, the
// error is errStale; else the object is pending if it is a whole month file of
// that point and month, else the error is Corrupt and names it. An object that
// is not there is Corrupt too. Errors of the store pass through. After an error
// the files fetched so far are in the cache.
func (p *Pins) Fetch(ctx context.Context, store object.Store, files []File, workers int, notify func(files int, bytes int64)) ([]Local, error) {
	f := &fetch{pins: p, cache: p.cache, store: store, notify: notify, manifests: map[utc.Month]*manifests.Manifest{}}
	f.linker, _ = store.(object.Linker)
	type version struct {
		key object.Key
		sha string
	}
	first := make(map[version]int, len(files))
	same := make([]int, len(files))
	out := make([]Local, len(files))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, workers))
	for i := range files {
		id := version{files[i].Key, files[i].SHA256}
		if j, again := first[id]; again {
			same[i] = j
			continue
		}
		first[id], same[i] = i, i
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			out[i], err = f.one(gctx, &files[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, j := range same {
		out[i] = out[j]
	}
	return out, nil
}

// Missing says how many of the files a Fetch would have to fetch, or, of a
// directory store, to read and verify; and their bytes.
func (p *Pins) Missing(files []File) (n int, bytes int64) {
	seen := make(map[string]bool, len(files))
	for i := range files {
		f := &files[i]
		if seen[f.SHA256] || !sample.IsSHA256(f.SHA256) {
			continue
		}
		seen[f.SHA256] = true
		p.mu.Lock()
		held := p.held[f.SHA256] != nil
		p.mu.Unlock()
		if held {
			continue
		}
		if _, err := lstat(p.cache.file(f.SHA256)); err == nil {
			continue
		}
		if _, err := lstat(p.cache.verified(f.SHA256)); err == nil {
			continue
		}
		n++
		bytes += f.Bytes
	}
	return n, bytes
}

// fetch is one call of Fetch.
type fetch struct {
	pins   *Pins
	cache  *Cache
	store  object.Store
	linker object.Linker // the store, if it is one
	noLink atomic.Bool   // the store can not link into the cache

	arriving sync.Mutex
	notify   func(files int, bytes int64)
	files    int
	bytes    int64

	// judging lets one object be decoded at a time: a hostile one of a few
	// kilobytes may decode to a gigabyte.
	judging   sync.Mutex
	manifests map[utc.Month]*manifests.Manifest // as they are now
}

func (f *fetch) one(ctx context.Context, file *File) (Local, error) {
	if err := file.Key.Check(); err != nil {
		return Local{}, err
	}
	if !sample.IsSHA256(file.SHA256) {
		return Local{}, fault.Errorf(fault.Invalid, "%s: sha256 %.80q is not 64 hex digits", file.Key, file.SHA256)
	}
	release, err := f.cache.busy.take(ctx, file.SHA256)
	if err != nil {
		return Local{}, err
	}
	defer release()
	if n, ok := f.pins.reuse(f.pins.held, file.SHA256); ok {
		return Local{Path: n.path}, nil
	}
	if f.linker != nil && !f.noLink.Load() {
		l, err := f.link(ctx, file)
		if !errors.Is(err, object.ErrNoLink) {
			return l, err
		}
		f.noLink.Store(true)
	}
	path, ok, err := f.cached(ctx, file)
	if err != nil {
		return Local{}, f.cache.fail("use", err)
	}
	if ok {
		return Local{Path: path}, nil
	}
	return f.copy(ctx, file)
}

// cached pins the file's copy, if the cache has a sound one.
func (f *fetch) cached(ctx context.Context, file *File) (path string, ok bool, err error) {
	p, from, to := f.pins, f.cache.file(file.SHA256), f.pins.path(file.SHA256)
	err = os.Link(from, to)
	if errors.Is(err, fs.ErrExist) { // left by a fetch that failed
		if err = remove(to); err == nil {
			err = os.Link(from, to)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	// What counts from here on is what was linked, whatever happens to the cache.
	st, err := lstat(to)
	if err == nil && !st.sound(file.Bytes) {
		st, ok, err = f.reverify(ctx, file, from, to, st)
		if !ok {
			return "", false, err
		}
	}
	if err != nil {
		return "", false, err
	}
	p.hold(p.held, file.SHA256, to, st, false)
	return to, true, nil
}

// reverify settles a copy that does not look as verified copies do: damaged, or
// a cache that was copied by something that does not keep times. A bad one is removed.
func (f *fetch) reverify(ctx context.Context, file *File, from, to string, st status) (status, bool, error) {
	if st.regular {
		switch sum, err := hashFile(ctx, to); {
		case err != nil && ctx.Err() != nil:
			return st, false, err
		case err == nil && sum == file.SHA256:
			_ = os.Chtimes(to, time.Time{}, verifiedTime) // if it is another user's, each session hashes it
			st, err = lstat(to)
			return st, err == nil, err
		}
	}
	if now, err := lstat(from); err == nil && now.stamp.ino == st.stamp.ino {
		if err := remove(from); err != nil {
			return st, false, err
		}
	}
	return st, false, remove(to)
}

// copy fetches the object.
func (f *fetch) copy(ctx context.Context, file *File) (Local, error) {
	data, _, err := f.store.Get(ctx, file.Key)
	if fault.Is(err, fault.NotExist) {
		return Local{}, f.missing(ctx, file)
	}
	if err != nil {
		return Local{}, err
	}
	h := sha256.Sum256(data)
	sum := hex.EncodeToString(h[:])
	to, pending := f.pins.path(sum), sum != file.SHA256
	if pending {
		if err := f.judge(ctx, file, sum, data); err != nil {
			return Local{}, err
		}
		to = f.pendingPath(sum)
	}
	if err := ctx.Err(); err != nil {
		return Local{}, err
	}
	st, err := f.pins.write(to, data)
	if err == nil {
		err = f.pins.share(to, f.cache.file(sum), st.stamp.size)
	}
	if err != nil {
		return Local{}, f.cache.fail("write to", err)
	}
	if !pending {
		f.pins.hold(f.pins.held, sum, to, st, false)
	}
	f.arrived(int64(len(data)))
	return Local{Path: to, Pending: pending}, nil
}

// pendingPath is a path of its own for each time that an object is found
// pending: the session's file of that hash may be in use.
func (f *fetch) pendingPath(sum string) string {
	return filepath.Join(f.pins.dir, sum+"-"+strconv.FormatInt(f.pins.seq.Add(1), 10)+parquetExt)
}

// link pins an object of a directory store where it lies. The error is
// ErrNoLink if that can not be.
func (f *fetch) link(ctx context.Context, file *File) (Local, error) {
	to := f.pins.path(file.SHA256)
	_, err := f.linker.Link(ctx, file.Key, to)
	if errors.Is(err, fs.ErrExist) { // left by a fetch that failed
		if err = remove(to); err == nil {
			_, err = f.linker.Link(ctx, file.Key, to)
		}
	}
	if fault.Is(err, fault.NotExist) {
		return Local{}, f.missing(ctx, file)
	}
	if err != nil {
		return Local{}, err
	}
	st, err := lstat(to)
	if err != nil {
		return Local{}, f.cache.fail("use", err)
	}
	if was, _ := os.Readlink(f.cache.verified(file.SHA256)); was == st.stamp.String() {
		f.pins.hold(f.pins.held, file.SHA256, to, st, true)
		return Local{Path: to}, nil
	}
	sum, err := hashFile(ctx, to)
	pending := err == nil && sum != file.SHA256
	if pending {
		var data []byte
		if data, err = os.ReadFile(to); err == nil {
			if err := f.judge(ctx, file, sum, data); err != nil {
				remove(to)
				return Local{}, err
			}
			final := f.pendingPath(sum)
			err = os.Rename(to, final)
			to = final
		}
	}
	if err == nil {
		err = f.cache.remember(f.pins, sum, st.stamp)
	}
	if err != nil {
		remove(to)
		return Local{}, f.cache.fail("use", err)
	}
	if !pending {
		f.pins.hold(f.pins.held, sum, to, st, true)
	}
	f.arrived(st.stamp.size)
	return Local{Path: to, Pending: pending}, nil
}

// remember notes that the file with this stamp has this SHA-256: a symbolic
// link that leads nowhere and whose text is the stamp, because such a link is
// made in one step, read in one, and needs no space of its own. The object
// itself is not linked into the cache, so that the cache never holds the space
// of an object that its store has replaced.
func (c *Cache) remember(p *Pins, sha string, s stamp) error {
	tmp := p.temp()
	if err := os.Symlink(s.String(), tmp); err != nil {
		return err
	}
	defer remove(tmp)
	return c.admit(0, func() error {
		_, err := lstat(c.verified(sha))
		if rerr := os.Rename(tmp, c.verified(sha)); rerr != nil {
			return rerr
		}
		if err == nil {
			return fs.ErrExist // and so counted already
		}
		return nil
	})
}

func (f *fetch) arrived(bytes int64) {
	if f.notify == nil {
		return
	}
	f.arriving.Lock()
	defer f.arriving.Unlock()
	f.files++
	f.bytes += bytes
	f.notify(f.files, f.bytes)
}

// named returns errStale unless the manifest, read again, still names the file.
func (f *fetch) named(ctx context.Context, file *File) error {
	m := f.manifests[file.Month]
	if m == nil {
		var err error
		m, _, err = manifests.Load(ctx, f.store, file.Month)
		if fault.Is(err, fault.Corrupt) || fault.Is(err, fault.Invalid) {
			return errStale // it was read before, so it has changed
		}
		if err != nil {
			return err
		}
		f.manifests[file.Month] = m
	}
	if e := m.Entry(file.Point); e == nil || e.Path != file.Key || e.SHA256 != file.SHA256 {
		return errStale
	}
	return nil
}

// missing is the error for an object that is not there.
func (f *fetch) missing(ctx context.Context, file *File) error {
	f.judging.Lock()
	defer f.judging.Unlock()
	if err := f.named(ctx, file); err != nil {
		return err
	}
	return f.corrupt(file, errors.New("it is missing"))
}

// judge decides about an object with another hash than the manifest's: nil
// means that it is pending.
func (f *fetch) judge(ctx context.Context, file *File, sum string, data []byte) error {
	f.judging.Lock()
	defer f.judging.Unlock()
	if err := f.named(ctx, file); err != nil {
		return err
	}
	info, err := monthfile.Inspect(data) // before the rows, which may be many
	switch {
	case err != nil:
	case info.PointID != file.Point:
		err = fmt.Errorf("it is of point %d", info.PointID)
	case info.Month != file.Month:
		err = fmt.Errorf("it is of month %s", info.Month)
	default:
		var s sample.Series
		_, err = monthfile.NewDecoder().Decode(data, &s)
	}
	if err != nil {
		return f.corrupt(file, fmt.Errorf("its SHA-256 is %.12s…, the manifest says %.12s…, and it is no newer file: %w", sum, file.SHA256, err))
	}
	return nil
}

func (f *fetch) corrupt(file *File, err error) error {
	return fault.Hint(fault.Errorf(fault.Corrupt, "%s, the file of point %d in %s: %w", file.Key, file.Point, file.Month, err),
		"`etl verify --deep --month %s` lists all that is wrong in that month, and how to mend it", file.Month)
}
