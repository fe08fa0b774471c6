package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// explain names the operation, the path, the reason, and what to do about the
// directory that is its place.
func explain(operation, path, place string, err error) error {
	// The path that these carry is relative to a directory: ours is whole.
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	if todo := advice(operation, place, err); todo != "" {
		return fmt.Errorf("%s %s: %w: %s", operation, path, err, todo)
	}
	return fmt.Errorf("%s %s: %w", operation, path, err)
}

// advice is the next step after an error of the file system.
func advice(operation, place string, err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of " + place
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("make the file system of %s writable; in a systemd unit, use StateDirectory= or ReadWritePaths=", place)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("uid %d, as which this runs, must own %s; in a systemd unit, see User= and StateDirectory=", os.Geteuid(), place)
	case errors.Is(err, fs.ErrNotExist) && operation == "open":
		return "make it, or name another"
	case errors.Is(err, syscall.EIO):
		return "look into the kernel's log: the disk of " + place + " fails"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise LimitNOFILE= of the unit"
	}
	return ""
}
