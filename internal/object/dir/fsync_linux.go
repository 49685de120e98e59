package dir

import "golang.org/x/sys/unix"

// fsync makes what was written to the file or directory durable.
func fsync(fd int) error { return unix.Fsync(fd) }
