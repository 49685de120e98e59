package dir

import "golang.org/x/sys/unix"

// fsync makes what was written to the file or directory durable. On macOS
// fsync(2) leaves it in the drive's cache; volumes that know no full sync (SMB)
// say ENOTSUP.
func fsync(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	if err == unix.ENOTSUP {
		return unix.Fsync(fd)
	}
	return err
}
