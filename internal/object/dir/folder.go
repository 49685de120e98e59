//go:build linux || darwin

package dir

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"etl/internal/fault"
	"etl/internal/object"
)

// folder is an open directory of the store. Its methods take the name of one
// entry, never a path, and follow no link, so that they stay in this very
// directory whatever happens to the path that led to it.
//
// They call the system directly: os.Root walks the whole path for each call and
// os.File offers each file to the poller. With those a write of 6 KB made 100
// system calls and took 60 µs beside its syncs; so it makes 35 and takes 25 µs.
// A folder is opened for one operation and not kept: that would save less than
// 10 µs, and a write could land where somebody has moved the folder long ago.
//
// Errors are fs.PathErrors, not classified.
//
// INVARIANT: whoever got an open one closes it, once; no finalizer does.
type folder struct {
	fd   int
	name string // path below the store's directory, "." for that itself
}

// openFolder opens the directory at the path name, whose last segment is seg, relative to fd.
func openFolder(fd int, seg, name string) (*folder, error) {
	sub, err := openat(fd, seg, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &folder{sub, name}, nil
}

// openat opens without leaking the descriptor to child processes; files that it
// creates get the rights that the umask leaves.
func openat(fd int, name string, flags int) (opened int, err error) {
	err = unInterrupted(func() (err error) {
		opened, err = unix.Openat(fd, name, flags|unix.O_CLOEXEC, 0o666)
		return err
	})
	return opened, err
}

// unInterrupted repeats a system call until no signal interrupts it.
func unInterrupted(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// close does nothing to nil.
func (d *folder) close() {
	if d != nil {
		unix.Close(d.fd)
	}
}

// pathOf is the path of an entry below the store's directory, for messages.
func (d *folder) pathOf(name string) string {
	if d.name == "." {
		return name
	}
	return d.name + "/" + name
}

// fail names the entry in an error, nil stays nil.
func (d *folder) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.pathOf(name), Err: err}
}

// sub opens a folder in d: ENOENT if there is nothing, ENOTDIR if there is a
// regular file, a classified Invalid error if there is anything else.
func (d *folder) sub(name string) (*folder, error) {
	path := d.pathOf(name)
	sub, err := openFolder(d.fd, name, path)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		if fi, statErr := d.lstat(name); statErr == nil && fi != nil && !fi.isDir() {
			err = cmp.Or(fi.wantRegular(path), err)
		}
	}
	return sub, err
}

// open opens a regular file in d; another kind of file at worst fails.
func (d *folder) open(name string, flags int) (fd int, err error) {
	fd, err = openat(d.fd, name, flags|unix.O_NOFOLLOW)
	return fd, d.fail("open", name, err)
}

// lstat describes the entry at name, nil if there is nothing.
func (d *folder) lstat(name string) (*info, error) {
	var st unix.Stat_t
	err := unInterrupted(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	switch {
	case err == unix.ENOENT:
		return nil, nil
	case err != nil:
		return nil, d.fail("lstat", name, err)
	}
	return newInfo(&st), nil
}

func (d *folder) mkdir(name string) error {
	return d.fail("mkdir", name, unInterrupted(func() error { return unix.Mkdirat(d.fd, name, 0o777) }))
}

// rename moves the file from in d to the name to in dest, replacing what is
// there. Interrupted, it is not repeated: it may have happened.
func (d *folder) rename(from string, dest *folder, to string) error {
	return dest.fail("rename", to, unix.Renameat(d.fd, from, dest.fd, to))
}

// link gives the file the further name to, a path that leads out of the store.
func (d *folder) link(name, to string) error {
	return d.fail("link", name, unInterrupted(func() error { return unix.Linkat(d.fd, name, unix.AT_FDCWD, to, 0) }))
}

func (d *folder) remove(name string) error {
	return d.fail("remove", name, unInterrupted(func() error { return unix.Unlinkat(d.fd, name, 0) }))
}

// setTime sets the times of access and modification.
func (d *folder) setTime(name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err == nil {
		err = unInterrupted(func() error {
			return unix.UtimesNanoAt(d.fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
		})
	}
	return d.fail("utimensat", name, err)
}

// names lists the entries in no order.
func (d *folder) names() ([]string, error) {
	fd, err := openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.name, Err: err}
	}
	f := os.NewFile(uintptr(fd), d.name)
	defer f.Close()
	return f.Readdirnames(-1)
}

// sync makes the entries of the folder durable. File systems that know no sync
// of a directory say EINVAL or ENOTSUP: they order their own metadata.
func (d *folder) sync() error {
	err := unInterrupted(func() error { return fsync(d.fd) })
	if err == unix.EINVAL || err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "fsync", Path: d.name, Err: err}
	}
	return nil
}

// folderID tells folders apart whatever their names are by now.
type folderID struct{ dev, ino uint64 }

func (d *folder) id() (folderID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return folderID{}, &fs.PathError{Op: "stat", Path: d.name, Err: err}
	}
	return folderID{uint64(st.Dev), st.Ino}, nil
}

// info is what the store asks of a file's inode.
type info struct {
	mode uint32
	size int64 // bytes
	mod  time.Time
}

func newInfo(st *unix.Stat_t) *info {
	return &info{uint32(st.Mode), st.Size, time.Unix(st.Mtim.Unix()).UTC()}
}

func fstat(fd int) (*info, error) {
	var st unix.Stat_t
	if err := unInterrupted(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return newInfo(&st), nil
}

func (fi *info) isDir() bool     { return fi.mode&unix.S_IFMT == unix.S_IFDIR }
func (fi *info) isRegular() bool { return fi.mode&unix.S_IFMT == unix.S_IFREG }

// wantRegular returns an Invalid error if fi, found at name, is no regular file.
func (fi *info) wantRegular(name string) error {
	what := "special file"
	switch fi.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		what = "folder"
	case unix.S_IFLNK:
		what = "symbolic link"
	}
	return fault.Errorf(fault.Invalid, "%s is a %s, not an object", name, what)
}

func (fi *info) etag() string {
	b := strconv.AppendUint(make([]byte, 0, 32), uint64(fi.mod.UnixNano()), 16)
	return string(strconv.AppendInt(append(b, '-'), fi.size, 16))
}

func (fi *info) attrs(key object.Key) object.Attrs {
	return object.Attrs{Key: key, Size: fi.size, ETag: fi.etag(), Modified: fi.mod}
}

// maxCall bounds the bytes of one read or write: macOS refuses 2 GiB.
const maxCall = 1 << 30

// readFull fills b; io.ErrUnexpectedEOF if the file ends before.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		var n int
		err := unInterrupted(func() (err error) { n, err = unix.Read(fd, b[:min(len(b), maxCall)]); return err })
		switch {
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

// writeFull writes all of b.
func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		var n int
		err := unInterrupted(func() (err error) { n, err = unix.Write(fd, b[:min(len(b), maxCall)]); return err })
		switch {
		case err != nil:
			return os.NewSyscallError("write", err)
		case n == 0:
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

func flock(fd, how int) error {
	return os.NewSyscallError("flock", unInterrupted(func() error { return unix.Flock(fd, how) }))
}

// top opens the store's directory once more, so that Close can not take it away
// from an operation that has begun.
func (s *Store) top() (d *folder, err error) {
	if s.conn.Control(func(fd uintptr) { d, err = openFolder(int(fd), ".", ".") }) != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, fs.ErrClosed)
	}
	return d, err
}

// walk opens the folder at the path name ("." for the top), each segment in the
// one before, so that no link leads it astray. It is nil if there is nothing or
// an object where a folder would be; anything else is an Invalid error.
func (s *Store) walk(name string) (*folder, error) {
	d, err := s.top()
	if name != "." && err == nil {
		for seg := range strings.SplitSeq(name, "/") {
			var sub *folder
			sub, err = d.sub(seg)
			d.close()
			if d = sub; err != nil {
				break
			}
		}
	}
	if gone(err) {
		return nil, nil
	}
	return d, s.classify(err)
}

// gone reports whether err says that there is nothing, or not the folder that
// was looked for.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
}
