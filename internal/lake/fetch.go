package lake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	out, _, err := p.fetch(ctx, store, files, workers, notify, false)
	return out, err
}

// FetchSound is Fetch that goes on past damaged and missing objects: bad has, for each of
// them, the error, which is Corrupt, by its place among the files.
func (p *Pins) FetchSound(ctx context.Context, store object.Store, files []File, workers int, notify func(files int, bytes int64)) (sound []Local, bad map[int]error, err error) {
	return p.fetch(ctx, store, files, workers, notify, true)
}

func (p *Pins) fetch(ctx context.Context, store object.Store, files []File, workers int, notify func(files int, bytes int64), soundOnly bool) ([]Local, map[int]error, error) {
	f := &fetch{pins: p, cache: p.cache, store: store, notify: notify, manifests: map[utc.Month]*manifests.Manifest{}}
	f.linker, _ = store.(object.Linker)
	type version struct {
		key object.Key
		sha string
	}
	first := make(map[version]int, len(files))
	same := make([]int, len(files))
	var wanted []int // the first of each
	for i := range files {
		if err := files[i].check(); err != nil {
			return nil, nil, err
		}
		id := version{files[i].Key, files[i].SHA256}
		j, again := first[id]
		if !again {
			j = i
			first[id] = i
			wanted = append(wanted, i)
		}
		same[i] = j
	}
	out := make([]Local, len(files))
	// What is at hand goes quickest in large pieces: a goroutine for each file
	// would cost as much as what it does.
	var quick sync.WaitGroup
	for piece := range slices.Chunk(wanted, max(64, (len(wanted)+1)/2)) {
		quick.Go(func() {
			var fs []*File
			for _, i := range piece {
				fs = append(fs, &files[i])
			}
			for k, path := range f.atHand(ctx, fs) {
				out[piece[k]].Path = path
			}
		})
	}
	quick.Wait()
	bad := map[int]error{}
	var mu sync.Mutex // of bad
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, workers))
	for _, i := range wanted {
		if out[i].Path != "" {
			continue
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() (err error) {
			out[i], err = f.one(gctx, &files[i])
			if soundOnly && fault.Is(err, fault.Corrupt) {
				mu.Lock()
				defer mu.Unlock()
				bad[i] = err
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	for i, j := range same {
		out[i] = out[j]
		if err := bad[j]; err != nil {
			bad[i] = err
		}
	}
	return out, bad, nil
}

// check refuses what must not become a part of a path.
func (f *File) check() error {
	if err := f.Key.Check(); err != nil {
		return err
	}
	if !sample.IsSHA256(f.SHA256) {
		return fault.Errorf(fault.Invalid, "%s: sha256 %.80q is not 64 hex digits", f.Key, f.SHA256)
	}
	return nil
}

// Missing says how many of the files a Fetch would have to fetch, or, of a
// directory store, to read and verify; and their bytes.
func (p *Pins) Missing(files []File) (n int, bytes int64) {
	wanted := make(map[string]int64, len(files))
	p.mu.Lock()
	for i := range files {
		if sha := files[i].SHA256; p.held[sha] == nil && sample.IsSHA256(sha) {
			wanted[sha] = files[i].Bytes
		}
	}
	p.mu.Unlock()
	p.cache.strike(wanted, verifiedDir, "")
	p.cache.strike(wanted, filesDir, parquetExt)
	for _, b := range wanted {
		n++
		bytes += b
	}
	return n, bytes
}

// strike takes those hashes out of wanted for which a folder of the cache has an
// entry. A look at each costs 1.5 µs, and 4,500 of them a third of what planning
// may take; so where the folder is not much larger than that, it is listed.
func (c *Cache) strike(wanted map[string]int64, folder, ext string) {
	const most = 4 // names that may be listed for each that is wanted
	dir := filepath.Join(c.dir, folder)
	if d, err := os.Open(dir); err == nil && len(wanted) >= 64 {
		defer d.Close()
		// An entry takes 80 bytes of a folder of ext4. Another file system may lie:
		// then the names say when it is enough.
		if st, err := d.Stat(); err == nil && st.Size()/80 <= int64(most*len(wanted)) {
			names, err := d.Readdirnames(most*len(wanted) + 1)
			if (err == nil || err == io.EOF) && len(names) <= most*len(wanted) {
				for _, name := range names {
					delete(wanted, strings.TrimSuffix(name, ext))
				}
				return
			}
		}
	}
	for sha := range wanted {
		if _, err := lstat(dir + "/" + sha + ext); err == nil {
			delete(wanted, sha)
		}
	}
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

// atHand pins those of the files that need neither the store's bytes nor a
// hash, and returns their paths, "" for the others. Whatever goes wrong is left
// to one.
func (f *fetch) atHand(ctx context.Context, files []*File) []string {
	p, paths := f.pins, make([]string, len(files))
	var at []int
	var keys []object.Key
	var to []string
	for i, file := range files {
		if n, ok := p.reuse(p.held, file.SHA256); ok {
			paths[i] = n.path
			continue
		}
		path := p.path(file.SHA256)
		if f.linker != nil && !f.noLink.Load() {
			at, keys, to = append(at, i), append(keys, file.Key), append(to, path)
			continue
		}
		if os.Link(f.cache.file(file.SHA256), path) != nil {
			continue
		}
		// What counts from here on is what was linked, whatever happens to the cache.
		if st, err := lstat(path); err == nil && st.sound(file.Bytes) {
			paths[i] = p.hold(p.held, file.SHA256, path, st, false).path
		} else {
			remove(path)
		}
	}
	if len(keys) == 0 {
		return paths
	}
	for k, err := range f.linker.Link(ctx, keys, to) {
		if errors.Is(err, object.ErrNoLink) {
			f.noLink.Store(true)
		}
		if err != nil {
			continue
		}
		sha := files[at[k]].SHA256
		st, err := lstat(to[k])
		if err == nil && st.regular {
			if was, _ := os.Readlink(f.cache.verified(sha)); was == st.stamp.String() {
				paths[at[k]] = p.hold(p.held, sha, to[k], st, true).path
				continue
			}
		}
		remove(to[k])
	}
	return paths
}

// one pins a file that was not at hand.
func (f *fetch) one(ctx context.Context, file *File) (Local, error) {
	release, err := f.cache.busy.take(ctx, file.SHA256)
	if err != nil {
		return Local{}, err
	}
	defer release()
	// Another goroutine may have fetched it meanwhile.
	if paths := f.atHand(ctx, []*File{file}); paths[0] != "" {
		return Local{Path: paths[0]}, nil
	}
	if f.linker != nil && !f.noLink.Load() {
		l, err := f.link(ctx, file)
		if !errors.Is(err, object.ErrNoLink) {
			return l, err
		}
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
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
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
	return p.hold(p.held, file.SHA256, to, st, false).path, true, nil
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
	pending := sum != file.SHA256
	if pending {
		if err := f.judge(ctx, file, sum, data); err != nil {
			return Local{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return Local{}, err
	}
	to := f.pins.path(sum)
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

// link pins an object of a directory store where it lies, and verifies it. The
// error is ErrNoLink if that can not be.
func (f *fetch) link(ctx context.Context, file *File) (Local, error) {
	to := f.pins.path(file.SHA256)
	err := f.linker.Link(ctx, []object.Key{file.Key}, []string{to})[0]
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
	if !st.regular { // Get says what it is
		remove(to)
		return Local{}, object.ErrNoLink
	}
	sum, err := hashFile(ctx, to)
	pending := err == nil && sum != file.SHA256
	var data []byte
	if pending {
		data, err = os.ReadFile(to)
	}
	if err != nil { // the object can not be read, which is no fault of the cache: Get says why
		remove(to)
		return Local{}, cmp.Or(ctx.Err(), object.ErrNoLink)
	}
	if pending {
		if err := f.judge(ctx, file, sum, data); err != nil {
			remove(to)
			return Local{}, err
		}
		final := f.pins.path(sum)
		err = os.Rename(to, final)
		to = final
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
		if err == nil && info.RowsSHA256 == file.RowsSHA256 {
			// No job stores the same rows in other bytes. What is damaged holds no
			// row, but DuckDB may read something out of it that etl passes over.
			err = errors.New("its rows are those of the manifest")
		}
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
