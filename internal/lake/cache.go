package lake

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"etl/internal/fault"
	"etl/internal/sample"
)

// The layout of a cache, below the folder that its user names. Another layout
// gets another name than v1, so that two versions of etl can share the folder.
//
//	v1/files/<sha256>.parquet      copies of month files, read-only
//	v1/verified/<sha256>           month files of a directory store that were verified
//	                               where they lie; see Cache.remember
//	v1/catalog/<id>-<size>-<crc>.* parsed manifests; see catalog.go
//	v1/pins/<session>/, .lock      what a session uses; see Pins
//	v1/total                       the sum of the costs of all but the pins, and the
//	                               lock under which entries come and go
const (
	layout      = "v1"
	filesDir    = "files"
	verifiedDir = "verified"
	catalogDir  = "catalog"
	pinsDir     = "pins"
	totalName   = "total"

	parquetExt = ".parquet"
	lockExt    = ".lock"
)

const (
	// overhead is what an entry costs beside its bytes: an inode and a name,
	// 256 and about 100 bytes on ext4.
	overhead = 512

	// touchStep is how exactly the time of the last use is kept. Without it, a
	// query over 4,500 cached files would write 4,500 inodes each time.
	touchStep = 10 * time.Minute

	// Once something has to go, a tenth of the cache goes: finding the oldest
	// means looking at every entry, 0.2 s for 100,000 of them.
	keepTenths = 9
)

// verifiedTime is the modification time of every verified copy. Whatever writes
// to a copy changes it, so that one look tells whether the bytes are still those
// that were verified; the time of the last use is in the access time. (A disk
// that changes bytes by itself is not noticed.)
var verifiedTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Cache is a folder of verified copies of month files and of parsed manifests,
// shared by any number of processes. What is in it has the hash that is its
// name; it comes whole or not at all, by a hard link to a finished file of a
// session; what was used longest ago goes first.
//
// INVARIANT: the costs of all entries sum up to no more than the size.
//
// Nothing is synced: what a crash of the machine leaves half written has
// another size or modification time than a verified copy and is fetched again.
//
// All methods are safe for concurrent use.
type Cache struct {
	root string // as the user named it
	dir  string // root/v1, absolute
	size int64  // bytes, at most
	now  func() time.Time

	busy turns      // by hash or id: one fetch of each at a time
	mu   sync.Mutex // goes before the lock of total, so that goroutines wait here
}

// CacheUsage says what a cache holds, or what was removed from it.
type CacheUsage struct {
	Files     int   `json:"files"`     // copies of month files
	Links     int   `json:"links"`     // month files of a directory store, verified where they lie
	Manifests int   `json:"manifests"` // parsed manifests and catalogs of points
	Bytes     int64 `json:"bytes"`     // of the copies and the manifests
	Limit     int64 `json:"limit"`     // what Bytes and a little for each entry may come to
}

// OpenCache opens the cache in a folder, which it makes if there is none, for
// its owner alone. It trims the cache to the size, in bytes.
func OpenCache(dir string, size int64) (*Cache, error) {
	if dir == "" || size < 0 {
		return nil, fault.Errorf(fault.Usage, "open the cache: folder %q, %d bytes: want a folder and a size", dir, size)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the cache %s: %w", dir, err)
	}
	c := &Cache{root: dir, dir: filepath.Join(abs, layout), size: size, now: time.Now}
	for _, d := range []string{filesDir, verifiedDir, catalogDir, pinsDir} {
		err := os.MkdirAll(filepath.Join(c.dir, d), 0o700)
		if errors.Is(err, fs.ErrNotExist) { // below /proc, where nothing can be made
			return nil, fault.Hint(fault.Errorf(fault.Usage, "open the cache %s: %w", dir, err), "no folder can be made there: name another one with --cache DIR")
		}
		if err != nil {
			return nil, c.fail("open", err)
		}
	}
	err = c.locked(func(t *total) error {
		if sum, ok := t.read(); ok && sum <= c.size {
			return nil
		}
		_, err := c.evict(t, c.size)
		return err
	})
	if err != nil {
		return nil, c.fail("open", err)
	}
	return c, nil
}

// IsCache reports whether OpenCache would find a cache in a folder, or something in
// its way: not whether it would have to make one.
func IsCache(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, layout))
	return !errors.Is(err, fs.ErrNotExist)
}

// fail classifies an error of the operating system and says what to do.
func (c *Cache) fail(what string, err error) error {
	if err == nil || fault.KindOf(err) != fault.Internal || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	err = fmt.Errorf("%s the cache %s: %w", what, c.root, err)
	switch {
	case is(syscall.ENOSPC, syscall.EDQUOT):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "free space or inodes on the disk that holds %s, lower --cache-size, or name a folder on another disk with --cache DIR", c.root)
	case is(syscall.EROFS, fs.ErrPermission) && !is(unix.EPERM):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "make %s and all below it writable for this user, or name another folder with --cache DIR", c.root)
	case is(unix.EPERM, unix.ENOLCK, unix.ENOTSUP, unix.ENOSYS, unix.EMLINK):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "the file system of %s lacks hard links or locks, or its files belong to someone else: name a folder of one's own on a local disk with --cache DIR", c.root)
	case is(unix.ENOTDIR, unix.EISDIR, unix.ENAMETOOLONG, unix.ELOOP):
		return fault.Hint(fault.Wrap(fault.Usage, err), "name a folder, or one that can be made, with --cache DIR")
	case is(unix.EMFILE, unix.ENFILE):
		return fault.Hint(fault.Wrap(fault.Transient, err), "allow more open files (ulimit -n), or use fewer workers")
	case is(unix.EIO, unix.ENXIO, unix.ENODEV, unix.ESTALE):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "the disk that holds %s fails: name a folder on another one with --cache DIR", c.root)
	case is(fs.ErrNotExist):
		return fault.Hint(fault.Wrap(fault.Transient, err), "something removed files below %s while they were in use: run the command again", c.root)
	}
	return err
}

func (c *Cache) file(sha string) string     { return c.dir + "/" + filesDir + "/" + sha + parquetExt }
func (c *Cache) verified(sha string) string { return c.dir + "/" + verifiedDir + "/" + sha }

// total is the file of that name, locked.
type total struct{ f *os.File }

// read is the sum of the costs of all entries. What a crash left may be too
// much, never too little: a cost is added before its entry.
func (t *total) read() (int64, bool) {
	var b [32]byte
	n, err := t.f.ReadAt(b[:], 0)
	if err != io.EOF {
		return 0, false
	}
	sum, err := strconv.ParseInt(strings.TrimSpace(string(b[:n])), 10, 64)
	return sum, err == nil && sum >= 0
}

// write is one write of always the same length: nothing to be cut in two.
func (t *total) write(sum int64) error {
	_, err := t.f.WriteAt(fmt.Appendf(nil, "%19d\n", sum), 0)
	return err
}

// locked runs f under the lock of all processes.
func (c *Cache) locked(f func(*total) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	file, err := os.OpenFile(filepath.Join(c.dir, totalName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := flock(file, unix.LOCK_EX); err != nil {
		return err
	}
	return f(&total{file})
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// admit brings an entry of so many bytes into the cache by calling link, having
// evicted what must go. link may find the entry there (fs.ErrExist). An entry
// that is larger than the whole cache is not admitted, which is no error: a
// session has it all the same.
func (c *Cache) admit(bytes int64, link func() error) error {
	cost := bytes + overhead
	if cost > c.size {
		return nil
	}
	return c.locked(func(t *total) error {
		sum, ok := t.read()
		if !ok || sum > c.size-cost {
			var err error
			if sum, err = c.evict(t, min(c.size-cost, c.size/10*keepTenths)); err != nil {
				return err
			}
		}
		if err := t.write(sum + cost); err != nil {
			return err
		}
		err := link()
		if err != nil {
			if err := t.write(sum); err != nil {
				return err
			}
		}
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	})
}

// entry is one file of the cache.
type entry struct {
	dir, name string
	bytes     int64
	used      int64 // nanoseconds since 1970
}

// scan looks at every entry. Files that no cache makes are passed over: they
// are never counted and never removed.
func (c *Cache) scan() ([]entry, error) {
	var all []entry
	for _, dir := range []string{filesDir, verifiedDir, catalogDir} {
		d, err := os.Open(filepath.Join(c.dir, dir))
		if err != nil {
			return nil, err
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			switch dir {
			case filesDir:
				sha, ok := strings.CutSuffix(name, parquetExt)
				if !ok || !sample.IsSHA256(sha) {
					continue
				}
			case verifiedDir:
				if !sample.IsSHA256(name) {
					continue
				}
			case catalogDir:
				if _, ok := parseCatalogName(name); !ok {
					continue
				}
			}
			st, err := lstat(filepath.Join(c.dir, dir, name))
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, err
			case dir == verifiedDir:
				all = append(all, entry{dir, name, 0, st.stamp.mtime})
			default:
				all = append(all, entry{dir, name, st.stamp.size, st.atime})
			}
		}
	}
	return all, nil
}

// evict counts all entries and removes those used longest ago until the rest
// costs no more than most. It writes and returns what the rest costs.
func (c *Cache) evict(t *total, most int64) (int64, error) {
	all, err := c.scan()
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, e := range all {
		sum += e.bytes + overhead
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.name, b.name))
	})
	for _, e := range all {
		if sum <= most {
			break
		}
		if err := remove(filepath.Join(c.dir, e.dir, e.name)); err != nil {
			return 0, err
		}
		sum -= e.bytes + overhead
	}
	if err := t.f.Truncate(0); err != nil { // whatever was there
		return 0, err
	}
	return sum, t.write(sum)
}

// Usage counts what the cache holds.
func (c *Cache) Usage() (CacheUsage, error) {
	all, err := c.scan()
	if err != nil {
		return CacheUsage{}, c.fail("read", err)
	}
	return c.sum(all), nil
}

func (c *Cache) sum(all []entry) CacheUsage {
	u := CacheUsage{Limit: c.size}
	for _, e := range all {
		switch e.dir {
		case filesDir:
			u.Files++
		case verifiedDir:
			u.Links++
		case catalogDir:
			u.Manifests++
		}
		u.Bytes += e.bytes
	}
	return u
}

// Clear empties the cache and says what was in it. Sessions keep what they have
// pinned; its space is free once they end.
func (c *Cache) Clear() (CacheUsage, error) {
	c.sweep()
	var gone []entry
	err := c.locked(func(t *total) error {
		var err error
		if gone, err = c.scan(); err == nil {
			_, err = c.evict(t, 0)
		}
		return err
	})
	if err != nil {
		return CacheUsage{}, c.fail("clear", err)
	}
	return c.sum(gone), nil
}

// remove is os.Remove of a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stamp tells one state of a file from others: any write to it, and any other
// file in its place, gives another one. Links and reads do not.
type stamp struct {
	dev, ino uint64
	mtime    int64 // nanoseconds since 1970
	size     int64
}

func (s stamp) String() string { return fmt.Sprintf("%x-%x-%x-%x", s.dev, s.ino, s.mtime, s.size) }

type status struct {
	stamp   stamp
	atime   int64 // nanoseconds since 1970
	regular bool
}

func lstat(path string) (status, error) {
	var st unix.Stat_t
	for {
		err := unix.Lstat(path, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return status{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		return status{
			stamp:   stamp{uint64(st.Dev), uint64(st.Ino), st.Mtim.Nano(), st.Size},
			atime:   st.Atim.Nano(),
			regular: st.Mode&unix.S_IFMT == unix.S_IFREG,
		}, nil
	}
}

// sound reports whether the file is a copy of so many bytes that was verified
// and has not been touched since.
func (s status) sound(bytes int64) bool {
	return s.regular && s.stamp.size == bytes && s.stamp.mtime == verifiedTime.UnixNano()
}

// hashFile is the SHA-256 of a file, in hex.
func hashFile(ctx context.Context, path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buf := hashBuffers.Get().(*[256 << 10]byte)
	defer hashBuffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf[:])
		h.Write(buf[:n])
		switch err {
		case nil:
		case io.EOF:
			return hex.EncodeToString(h.Sum(nil)), nil
		default:
			return "", err
		}
	}
}

var hashBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// Pins is what one session uses: a folder of its own with hard links to cached
// copies and, for a directory store, to the objects themselves. So neither
// eviction, in whatever process, nor a later write to the store takes a file
// away before Close.
//
// A session lives as long as the lock on the file beside its folder, which the
// kernel drops when the process dies; the next session sweeps the folder then.
type Pins struct {
	cache *Cache
	dir   string
	lock  *os.File
	seq   atomic.Int64 // for names of temporary files

	mu         sync.Mutex
	held       map[string]*pin // by SHA-256
	catalog    map[string]*pin // by id, see catalog.go
	points     *pointsFile
	fresh      map[string]*fresh // by id
	freshBytes int64

	early    turns // by key: what is being fetched before it was listed, see earlyMonths
	settling sync.Mutex
}

// pin is a verified file of the session's folder.
type pin struct {
	path    string
	stamp   stamp     // when it was verified
	link    bool      // to an object of the store, which must never be touched
	touched time.Time // guarded by Pins.mu
}

// Pin begins a session, and sweeps those of dead processes.
func (c *Cache) Pin() (*Pins, error) {
	c.sweep()
	p, err := c.newPins()
	if err != nil {
		return nil, c.fail("use", err)
	}
	return p, nil
}

func (c *Cache) newPins() (*Pins, error) {
	for {
		dir := filepath.Join(c.dir, pinsDir, strings.ToLower(rand.Text()))
		lock, err := os.OpenFile(dir+lockExt, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			remove(dir + lockExt)
			lock.Close()
			return nil, err
		} else if err == nil {
			// A sweep may have got hold of the file in the moment before it was locked.
			var st unix.Stat_t
			if err = unix.Fstat(int(lock.Fd()), &st); err == nil && st.Nlink > 0 {
				if err := os.Mkdir(dir, 0o700); err != nil {
					remove(dir + lockExt)
					lock.Close()
					return nil, err
				}
				return &Pins{cache: c, dir: dir, lock: lock, held: map[string]*pin{}, catalog: map[string]*pin{}, fresh: map[string]*fresh{}}, nil
			}
		}
		lock.Close()
	}
}

// sweep removes the sessions of dead processes. It does what it can: a folder
// that stays costs space, nothing else.
func (c *Cache) sweep() {
	pins := filepath.Join(c.dir, pinsDir)
	entries, _ := os.ReadDir(pins)
	for _, e := range entries {
		path := filepath.Join(pins, e.Name())
		if e.IsDir() {
			// The lock file comes before its folder and goes after it.
			if _, err := os.Lstat(path + lockExt); errors.Is(err, fs.ErrNotExist) {
				os.RemoveAll(path)
			}
			continue
		}
		folder, ok := strings.CutSuffix(path, lockExt)
		if !ok {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil && os.RemoveAll(folder) == nil {
			os.Remove(path)
		}
		f.Close()
	}
}

// Dir is the session's folder: DuckDB may read and spill here, nowhere else.
func (p *Pins) Dir() string { return p.dir }

// Close ends the session and removes its folder. No path of it may be used any more.
func (p *Pins) Close() error {
	err := os.RemoveAll(p.dir)
	if err == nil {
		err = remove(p.dir + lockExt)
	}
	// If something stays, the next session removes it: the lock is free then.
	if cerr := p.lock.Close(); err == nil && !errors.Is(cerr, fs.ErrClosed) {
		err = cerr
	}
	if err != nil {
		return p.cache.fail("close a session of", err)
	}
	return nil
}

// path is a new path for the file with this SHA-256. Each is given once: two
// goroutines that pin a file at the same time have two links to it.
func (p *Pins) path(sha string) string {
	return p.dir + "/" + sha + "-" + strconv.FormatInt(p.seq.Add(1), 10) + parquetExt
}

// temp is a new name in the session's folder.
func (p *Pins) temp() string {
	return filepath.Join(p.dir, "new-"+strconv.FormatInt(p.seq.Add(1), 10))
}

// hold remembers a verified file of the session's folder, and notes its use.
func (p *Pins) hold(in map[string]*pin, key, path string, st status, link bool) *pin {
	n := &pin{path: path, stamp: st.stamp, link: link, touched: time.Unix(0, st.atime)}
	if link {
		n.touched = time.Time{}
	}
	p.mu.Lock()
	in[key] = n
	p.mu.Unlock()
	p.touch(key, n)
	return n
}

// reuse is the session's file if it has it, still as it was when it was
// verified. One that has changed is let go.
func (p *Pins) reuse(in map[string]*pin, key string) (*pin, bool) {
	p.mu.Lock()
	n := in[key]
	p.mu.Unlock()
	if n == nil {
		return nil, false
	}
	if st, err := lstat(n.path); err == nil && st.stamp == n.stamp {
		p.touch(key, n)
		return n, true
	}
	p.mu.Lock()
	if in[key] == n { // else another goroutine has been here
		delete(in, key)
	}
	p.mu.Unlock()
	remove(n.path)
	return nil, false
}

// touch notes the use of an entry. It can fail without harm: the entry belongs
// to someone else, or was evicted and lives in this session only.
func (p *Pins) touch(key string, n *pin) {
	now := p.cache.now()
	p.mu.Lock()
	due := now.Sub(n.touched).Abs() >= touchStep
	if due {
		n.touched = now
	}
	p.mu.Unlock()
	if !due {
		return
	}
	if !n.link {
		_ = os.Chtimes(n.path, now, time.Time{})
		return
	}
	path := p.cache.verified(key)
	st, err := lstat(path)
	if err != nil || now.Sub(time.Unix(0, st.stamp.mtime)).Abs() < touchStep {
		return
	}
	if ts, err := unix.TimeToTimespec(now); err == nil {
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// write makes a read-only file of data at path, whole or not at all.
func (p *Pins) write(path string, data []byte) (status, error) {
	tmp := p.temp()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return status{}, err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chtimes(tmp, p.cache.now(), verifiedTime)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		remove(tmp)
		return status{}, err
	}
	return lstat(path)
}

// share brings a finished file of the session into the cache, at path.
func (p *Pins) share(from, path string, bytes int64) error {
	return p.cache.admit(bytes, func() error {
		err := os.Link(from, path)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if st, serr := lstat(path); serr == nil && !st.sound(bytes) {
			tmp := p.temp()
			if lerr := os.Link(from, tmp); lerr != nil {
				return lerr
			}
			if rerr := os.Rename(tmp, path); rerr != nil {
				remove(tmp)
				return rerr
			}
		}
		return err
	})
}

// turns lets one goroutine at a time work on each key.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the key is free again
}

// take waits for the turn of this call, or until ctx ends.
func (t *turns) take(ctx context.Context, key string) (release func(), err error) {
	for {
		t.mu.Lock()
		ch := t.busy[key]
		if ch == nil {
			if t.busy == nil {
				t.busy = map[string]chan struct{}{}
			}
			ch = make(chan struct{})
			t.busy[key] = ch
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, key)
				t.mu.Unlock()
				close(ch)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
