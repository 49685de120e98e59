//go:build linux || darwin

// Package dir is the object store over a local directory: each object is a
// plain file, its key is the path below the directory. It owns the folder .etl
// inside the directory (temporary files and locks, never listed) and the
// promise that a write is whole, conditional and durable:
//
//   - The bytes go to a temporary file, which is synced, renamed over the key
//     under a lock that holds between processes, and whose directory is synced
//     before Put returns. Each Put syncs for itself: the file system's journal
//     already joins syncs that come together (sharing one between 4 writers
//     measured no faster on ext4).
//   - The ETag is the file's modification time in nanoseconds and its size,
//     both in hex. Each version of a key gets a later time than the one before,
//     so an ETag never comes twice for a key, listing needs no file's bytes,
//     and "cp -a" keeps ETags. A plain copy changes them, which harms nothing:
//     ETags say nothing about integrity.
//   - Locks are flocks: the kernel drops them when a process dies. A file
//     system without flock can be read but not written. Removing .etl is safe
//     while no Put runs.
//
// What it refuses: metadata (it has none: Attrs.Meta is nil), keys below .etl,
// segments longer than the file system allows (255 bytes), a key that is a
// folder of other keys, and to follow any symbolic link below the directory.
// Keys that differ only by case are one object on a file system that folds case.
package dir

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"etl/internal/fault"
	"etl/internal/object"
)

const (
	ownDir  = ".etl"
	tempDir = ownDir + "/tmp"
	lockDir = ownDir + "/locks"

	// 64 locks: 32 writers on as many keys seldom wait for each other, and a
	// lock is held for a stat and a rename only.
	lockCount = 64

	// sweepAge keeps a sweep away from a temporary file that its writer has
	// created and not yet locked, a matter of microseconds.
	sweepAge = time.Minute
)

// Store is an object.Store over a directory.
type Store struct {
	path string // as the caller gave it, for hints
	root *os.Root

	// turn holds one token per lock file: within a process writers wait here,
	// where a context can end the wait, and only one at a time tries the flock.
	turn [lockCount]chan struct{}

	mu       sync.Mutex
	prepared bool            // .etl exists and was swept by this Store
	durable  map[string]bool // directories whose entry in their parent this Store synced

	// hook, if set, sees each step of a write before it is done; an error
	// stands for the step's own. Tests trace and break writes with it.
	hook func(op, name string) error
}

var _ object.Store = (*Store)(nil)

// Open returns the store over the directory at path, which it creates, durably
// and with its parents, if there is none. It writes nothing to a directory that
// exists, so that a read-only one can be read.
func Open(path string) (*Store, error) {
	if path == "" {
		return nil, fault.Errorf(fault.Invalid, "open store: no directory given")
	}
	s := &Store{path: path, durable: map[string]bool{}}
	for i := range s.turn {
		s.turn[i] = make(chan struct{}, 1)
	}
	if err := makeDirs(filepath.Clean(path)); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, s.classify(err))
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, s.classify(err))
	}
	s.root = root
	return s, nil
}

// Close lets go of the directory. The Store must not be used after.
func (s *Store) Close() error { return s.root.Close() }

// makeDirs is os.MkdirAll that syncs the parent of each directory it creates.
func makeDirs(path string) error {
	fi, err := os.Stat(path)
	if err == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err = os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return err
	}
	return syncClose(d)
}

// syncClose syncs a directory and closes it. File systems that know no sync of
// a directory say EINVAL or ENOTSUP: they order their own metadata.
func syncClose(d *os.File) error {
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// checkKey returns an Invalid error for a key that this store can not hold.
func checkKey(key object.Key) error {
	if err := key.Check(); err != nil {
		return err
	}
	if reserved(string(key)) {
		return fault.Errorf(fault.Invalid, "object key %.80q: keys below %s are reserved", string(key), ownDir)
	}
	return nil
}

// reserved reports whether the first segment of a key is .etl, in whatever case
// a file system may fold it from.
func reserved(key string) bool {
	first, _, _ := strings.Cut(key, "/")
	return strings.EqualFold(first, ownDir)
}

func etag(fi fs.FileInfo) string {
	return fmt.Sprintf("%x-%x", uint64(fi.ModTime().UnixNano()), fi.Size())
}

func attrs(key object.Key, fi fs.FileInfo) object.Attrs {
	return object.Attrs{Key: key, Size: fi.Size(), ETag: etag(fi), Modified: fi.ModTime().UTC()}
}

// Get implements object.Store.
func (s *Store) Get(ctx context.Context, key object.Key) ([]byte, object.Attrs, error) {
	fail := func(err error) ([]byte, object.Attrs, error) {
		return nil, object.Attrs{}, fmt.Errorf("get %s: %w", key, err)
	}
	if err := checkKey(key); err != nil {
		return nil, object.Attrs{}, fmt.Errorf("get: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	if fi, err := s.stat(string(key)); err != nil {
		return fail(err)
	} else if fi == nil || fi.IsDir() {
		return fail(fault.Wrap(fault.NotExist, fs.ErrNotExist))
	}
	// The file may have been replaced since: what counts is what is open now.
	f, err := s.root.OpenFile(string(key), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fail(s.classify(err))
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fail(s.classify(err))
	}
	if err := wantRegular(string(key), fi); err != nil {
		return fail(err)
	}
	data := make([]byte, fi.Size())
	switch _, err := io.ReadFull(f, data); {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return fail(fault.Errorf(fault.Transient, "the file shrank while it was read: something other than a store changes it in place"))
	case err != nil:
		return fail(s.classify(err))
	}
	return data, attrs(key, fi), nil
}

// wantRegular returns an Invalid error if fi is no regular file.
func wantRegular(name string, fi fs.FileInfo) error {
	if fi.Mode().IsRegular() {
		return nil
	}
	what := "special file"
	switch {
	case fi.IsDir():
		what = "folder"
	case fi.Mode()&fs.ModeSymlink != 0:
		what = "symbolic link"
	}
	return fault.Errorf(fault.Invalid, "%s is a %s, not an object", name, what)
}

// stat describes the regular file or the folder at name, nil if there is
// nothing. Anything else at name, and any link on the way to it, is an Invalid
// error. os.Root confines all access to the directory in any case; the check
// keeps links inside it from giving one file two names, and so two locks.
func (s *Store) stat(name string) (fs.FileInfo, error) {
	for i := 0; ; i++ {
		end := len(name)
		if k := strings.IndexByte(name[i:], '/'); k >= 0 {
			end = i + k
		}
		i = end
		fi, err := s.root.Lstat(name[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, s.classify(err)
		case fi.IsDir():
			if i == len(name) {
				return fi, nil
			}
		case i < len(name) && fi.Mode().IsRegular():
			return nil, nil // an object where the key has a folder: nothing can be below it
		default:
			return fi, wantRegular(name[:i], fi)
		}
	}
}

// Put implements object.Store. It ignores o.Meta and o.Type, which a directory
// can not keep.
func (s *Store) Put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	if err := cmp.Or(checkKey(key), o.Check()); err != nil {
		return object.Attrs{}, fmt.Errorf("put: %w", err)
	}
	a, err := s.put(ctx, key, data, o)
	if fault.Is(err, fault.NotExist) {
		// Someone removed a folder in the middle of it: the next try makes it anew.
		err = fault.Wrap(fault.Transient, err)
	}
	if err != nil {
		return object.Attrs{}, fmt.Errorf("put %s: %w", key, err)
	}
	return a, nil
}

func (s *Store) put(ctx context.Context, key object.Key, data []byte, o object.PutOptions) (object.Attrs, error) {
	if err := ctx.Err(); err != nil {
		return object.Attrs{}, err
	}
	// A condition that fails already needs no file and no lock.
	old, err := s.current(key, o)
	if err != nil {
		return object.Attrs{}, err
	}
	if err := s.ensureDir(path.Dir(string(key))); err != nil {
		return object.Attrs{}, err
	}
	f, temp, err := s.writeTemp(data, old)
	if err != nil {
		return object.Attrs{}, err
	}
	// The file stays open, and so locked against a sweep, until it has its name.
	// It is synced: closing it can report nothing that matters.
	defer f.Close()

	a, err := s.publish(ctx, key, f, temp, o)
	if err != nil && !fault.Is(err, fault.Unknown) {
		s.root.Remove(temp) // after an unknown outcome a later sweep does it
	}
	return a, err
}

// current is the file now at key, nil if there is none, once it has met the condition.
func (s *Store) current(key object.Key, o object.PutOptions) (fs.FileInfo, error) {
	fi, err := s.stat(string(key))
	if err != nil {
		return nil, err
	}
	if fi != nil && fi.IsDir() {
		return nil, wantRegular(string(key), fi)
	}
	switch {
	case o.IfAbsent && fi != nil:
		return nil, fault.Errorf(fault.Conflict, "the object exists, version %s", etag(fi))
	case o.IfMatch != "" && fi == nil:
		return nil, fault.Errorf(fault.Conflict, "the object does not exist, want version %s", o.IfMatch)
	case o.IfMatch != "" && etag(fi) != o.IfMatch:
		return nil, fault.Errorf(fault.Conflict, "the object is version %s, want %s", etag(fi), o.IfMatch)
	}
	return fi, nil
}

// step runs one step of a write, or has the hook fail it.
func (s *Store) step(op, name string, f func() error) error {
	if s.hook != nil {
		if err := s.hook(op, name); err != nil {
			return err
		}
	}
	return f()
}

// writeTemp makes a synced temporary file of data, later than old, and returns
// it open and flocked. On an error none is left.
func (s *Store) writeTemp(data []byte, old fs.FileInfo) (f *os.File, temp string, err error) {
	if err := s.prepare(false); err != nil {
		return nil, "", err
	}
	temp = tempDir + "/" + rand.Text()
	create := func() (err error) {
		f, err = s.root.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		return err
	}
	err = s.step("create", tempDir, create)
	if errors.Is(err, fs.ErrNotExist) { // someone removed .etl
		if err = s.prepare(true); err == nil {
			err = create()
		}
	}
	if err != nil {
		return nil, "", s.classify(err)
	}
	err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = s.step("write", tempDir, func() error { _, err := f.Write(data); return err })
	}
	if err == nil {
		err = s.finish(f, temp, old)
	}
	if err != nil {
		f.Close()
		s.root.Remove(temp)
		return nil, "", s.classify(err)
	}
	return f, temp, nil
}

// finish gives the temporary file a modification time later than old's and
// syncs it. Some file systems round times down, to as much as 2 s (FAT), so the
// step grows until the file really is later.
//
// INVARIANT: the versions of a key ascend strictly by modification time, so no ETag comes twice.
func (s *Store) finish(f *os.File, temp string, old fs.FileInfo) error {
	t := time.Now()
	if old != nil && !t.After(old.ModTime()) {
		t = old.ModTime().Add(1)
	}
	for _, further := range []time.Duration{0, time.Microsecond, time.Millisecond, 20 * time.Millisecond, time.Second, 2 * time.Second} {
		if err := s.root.Chtimes(temp, time.Time{}, t.Add(further)); err != nil {
			return err
		}
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		if old == nil || fi.ModTime().After(old.ModTime()) {
			return s.step("fsync", tempDir, f.Sync)
		}
	}
	return fault.Errorf(fault.Unavailable, "the file system keeps no modification time later than %s", old.ModTime())
}

// publish gives the temporary file its name if the condition still holds, and
// makes that durable.
func (s *Store) publish(ctx context.Context, key object.Key, f *os.File, temp string, o object.PutOptions) (object.Attrs, error) {
	unlock, err := s.lock(ctx, key)
	if err != nil {
		return object.Attrs{}, err
	}
	a, err := s.replace(ctx, key, f, temp, o)
	unlock()
	if err != nil {
		return object.Attrs{}, err
	}
	if err := s.syncDir(path.Dir(string(key))); err != nil {
		return object.Attrs{}, fault.Wrap(fault.Unknown, fmt.Errorf("the object is there, but a power cut may undo it: %w", s.classify(err)))
	}
	return a, nil
}

// replace checks the condition and renames, all under the lock of key.
func (s *Store) replace(ctx context.Context, key object.Key, f *os.File, temp string, o object.PutOptions) (object.Attrs, error) {
	if err := ctx.Err(); err != nil { // the wait for the lock may have been long
		return object.Attrs{}, err
	}
	old, err := s.current(key, o)
	if err != nil {
		return object.Attrs{}, err
	}
	fi, err := f.Stat()
	if err == nil && old != nil && !fi.ModTime().After(old.ModTime()) {
		// Another writer overtook this one between its sync and its lock.
		if err = s.finish(f, temp, old); err == nil {
			fi, err = f.Stat()
		}
	}
	if err != nil {
		return object.Attrs{}, s.classify(err)
	}
	if err := s.step("rename", string(key), func() error { return s.root.Rename(temp, string(key)) }); err != nil {
		// A remote file system may have renamed and lost the answer.
		for _, no := range []error{syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EINTR} {
			if errors.Is(err, no) {
				return object.Attrs{}, fault.Wrap(fault.Unknown, s.classify(err))
			}
		}
		return object.Attrs{}, s.classify(err)
	}
	return attrs(key, fi), nil
}

// prepare makes .etl and sweeps it, once for a Store unless again is set.
func (s *Store) prepare(again bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prepared && !again {
		return nil
	}
	for _, d := range []string{tempDir, lockDir} {
		if err := s.step("mkdir", d, func() error { return s.root.MkdirAll(d, 0o777) }); err != nil {
			return s.classify(err)
		}
	}
	s.sweep()
	s.prepared = true
	return nil
}

// sweep removes the temporary files of dead processes: those that nobody holds
// a flock on. It does what it can: a file that stays costs space, nothing else.
func (s *Store) sweep() {
	d, err := s.root.Open(tempDir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		name = tempDir + "/" + name
		if fi, err := s.root.Lstat(name); err != nil || !fi.Mode().IsRegular() || time.Since(fi.ModTime()).Abs() < sweepAge {
			continue
		}
		if f, err := s.root.OpenFile(name, os.O_RDWR, 0); err == nil {
			if flock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				s.root.Remove(name)
			}
			f.Close()
		}
	}
}

// ensureDir makes a folder and its parents. The first time that this Store uses
// one it syncs the folder's entry in its parent, even if the folder was there:
// whoever made it may not have come to that yet.
func (s *Store) ensureDir(name string) error {
	if name == "." {
		return nil
	}
	parent := path.Dir(name)
	if err := s.ensureDir(parent); err != nil {
		return err
	}
	fi, err := s.stat(name)
	if err != nil {
		return err
	}
	if fi == nil {
		err := s.step("mkdir", name, func() error { return s.root.Mkdir(name, 0o777) })
		if errors.Is(err, fs.ErrExist) { // another writer was faster
			fi, err = s.stat(name)
		}
		if err != nil {
			return s.classify(err)
		}
	}
	if fi != nil {
		if !fi.IsDir() {
			return fault.Errorf(fault.Invalid, "%s is an object, so no key can be below it", name)
		}
		s.mu.Lock()
		durable := s.durable[name]
		s.mu.Unlock()
		if durable {
			return nil
		}
	}
	if err := s.syncDir(parent); err != nil {
		return s.classify(err)
	}
	s.mu.Lock()
	s.durable[name] = true
	s.mu.Unlock()
	return nil
}

// syncDir makes the entries of a folder durable.
func (s *Store) syncDir(name string) error {
	return s.step("fsync", name, func() error {
		d, err := s.root.Open(name)
		if err != nil {
			return err
		}
		return syncClose(d)
	})
}

// lock waits for the lock of key, between goroutines and processes, until ctx is done.
func (s *Store) lock(ctx context.Context, key object.Key) (unlock func(), err error) {
	h := fnv.New32a()
	h.Write([]byte(key))
	i := h.Sum32() % lockCount
	select {
	case s.turn[i] <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, err := s.flockFile(ctx, fmt.Sprintf("%s/%02x", lockDir, i))
	if err != nil {
		<-s.turn[i]
		return nil, err
	}
	return func() {
		f.Close() // releases the flock
		<-s.turn[i]
	}, nil
}

// flockFile opens and flocks the lock file at name.
func (s *Store) flockFile(ctx context.Context, name string) (*os.File, error) {
	// A holder needs some 20 µs, so the wait starts short; it doubles up to
	// 10 ms for the case that a process was stopped while it held the lock.
	wait := 50 * time.Microsecond
	for {
		var f *os.File
		err := s.step("lock", lockDir, func() (err error) {
			if f, err = s.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
				return err
			}
			if err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
				f.Close()
			}
			return err
		})
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, fs.ErrNotExist): // someone removed .etl
			if err := s.prepare(true); err != nil {
				return nil, err
			}
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, s.classify(err)
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 10*time.Millisecond)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func flock(f *os.File, how int) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := c.Control(func(fd uintptr) {
		for {
			if lockErr = syscall.Flock(int(fd), how); lockErr != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("flock", lockErr)
}

// List implements object.Store. It holds the names of one folder per level in
// memory, not those of the tree, and skips what is no object: .etl, links,
// special files, names that are no valid key.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[object.Attrs, error] {
	return func(yield func(object.Attrs, error) bool) {
		fail := func(err error) {
			yield(object.Attrs{}, fmt.Errorf("list %q: %w", prefix, err))
		}
		if err := ctx.Err(); err != nil {
			fail(err)
			return
		}
		base := prefix[:strings.LastIndexByte(prefix, '/')+1] // "" or up to a "/"
		folder := "."
		if base != "" {
			folder = base[:len(base)-1]
			if checkKey(object.Key(folder)) != nil {
				return // no key can begin so
			}
			fi, err := s.stat(folder)
			if fault.Is(err, fault.Invalid) || err == nil && (fi == nil || !fi.IsDir()) {
				return
			}
			if err != nil {
				fail(err)
				return
			}
		}
		root, err := s.root.OpenRoot(folder)
		if err == nil {
			_, err = walk(ctx, root, base, prefix, yield)
		}
		if err != nil && !gone(err) {
			fail(s.classify(err))
		}
	}
}

// gone reports whether err says that a file vanished, or was replaced by
// something that is no folder, while its folder was being listed.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// walk yields the objects of one folder, whose keys begin with base, and of
// those below it, and closes root. prefix is base and at most a part of a name. more is false when yield wants no more.
func walk(ctx context.Context, root *os.Root, base, prefix string, yield func(object.Attrs, error) bool) (more bool, err error) {
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return true, err
	}
	found, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return true, err
	}
	// A folder sorts as its name and "/", which is how the keys below it sort:
	// "a-b" and "a.b" come before "a/b", "a0" after it.
	type entry struct {
		key    string
		folder bool
	}
	entries := make([]entry, 0, len(found))
	for _, e := range found {
		key := base + e.Name()
		if checkKey(object.Key(key)) != nil {
			continue
		}
		switch {
		case e.IsDir():
			if key += "/"; strings.HasPrefix(key, prefix) {
				entries = append(entries, entry{key, true})
			}
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix):
			entries = append(entries, entry{key, false})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		name := e.key[len(base):]
		if e.folder {
			sub, err := root.OpenRoot(strings.TrimSuffix(name, "/"))
			if err == nil {
				more, err = walk(ctx, sub, e.key, prefix, yield)
			}
			switch {
			case err != nil && !gone(err):
				return true, err
			case err == nil && !more:
				return false, nil
			}
			continue
		}
		fi, err := root.Lstat(name)
		switch {
		case err != nil && gone(err), err == nil && !fi.Mode().IsRegular():
			continue
		case err != nil:
			return true, err
		}
		if !yield(attrs(object.Key(e.key), fi), nil) {
			return false, nil
		}
	}
	return true, nil
}

// classify gives an error of the operating system its kind, and a hint where a
// person can mend it.
func (s *Store) classify(err error) error {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	const stays = "what was committed stays; then run the command again"
	switch {
	case fault.KindOf(err) != fault.Internal || is(context.Canceled, context.DeadlineExceeded):
		return err // classified where it arose
	case is(fs.ErrNotExist):
		return fault.Wrap(fault.NotExist, err)
	case is(syscall.ENOSPC, syscall.EDQUOT):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "free space or inodes, or raise the quota, on the disk that holds %s; %s", s.path, stays)
	case is(syscall.EROFS):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "mount the disk that holds %s for writing; %s", s.path, stays)
	case is(fs.ErrPermission):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "let this user read and write %s and all below it (chmod, chown); %s", s.path, stays)
	case is(syscall.EFBIG):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "raise the largest file size allowed (ulimit -f) on %s; %s", s.path, stays)
	case is(syscall.EIO, syscall.ENXIO, syscall.ENODEV):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "the disk that holds %s fails: look into the system log; %s", s.path, stays)
	case is(syscall.ENOLCK, syscall.ENOTSUP, syscall.ENOSYS):
		return fault.Hint(fault.Wrap(fault.Unavailable, err), "the file system of %s has no file locks (flock): writing needs them", s.path)
	case is(syscall.EMFILE, syscall.ENFILE):
		return fault.Hint(fault.Wrap(fault.Transient, err), "allow more open files (ulimit -n), or use fewer workers")
	case is(syscall.ESTALE, syscall.ETIMEDOUT, syscall.EAGAIN, syscall.EINTR, syscall.ENOMEM):
		return fault.Wrap(fault.Transient, err)
	case is(syscall.ENAMETOOLONG):
		return fault.Wrap(fault.Invalid, fmt.Errorf("a segment of the key is longer than the file system of %s allows: %w", s.path, err))
	case is(syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, fs.ErrExist, syscall.EILSEQ):
		return fault.Wrap(fault.Invalid, err)
	}
	return err
}
