package certdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// explain names the operation, the path, the reason, and what to do.
func explain(operation, path string, err error) error {
	// The path that these carry is relative to a directory: ours is whole.
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	if todo := advice(operation, path, err); todo != "" {
		return fmt.Errorf("%s %s: %w: %s", operation, path, err, todo)
	}
	return fmt.Errorf("%s %s: %w", operation, path, err)
}

// advice is the next step after an error of the file system.
func advice(operation, path string, err error) string {
	place := filepath.Dir(path)
	owned := place
	switch operation {
	case "open", "list", "read", "change the mode of":
		owned = path
	}
	if before, _, found := strings.Cut(place, "/"+storeName); found {
		place = before
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of " + place
	case errors.Is(err, syscall.EROFS):
		return fmt.Sprintf("make the file system of %s writable; in a systemd unit with ProtectSystem=, add ReadWritePaths=%s", place, place)
	case errors.Is(err, fs.ErrPermission) && operation == "change the owner of":
		return fmt.Sprintf("only root may give files to others, and a user to his own groups: run the agent as root instead of uid %d, or leave owner and group as they are", os.Geteuid())
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("uid %d, as which this runs, must own %s or have its rights; in a systemd unit, see User= and ReadWritePaths=", os.Geteuid(), owned)
	case errors.Is(err, syscall.EWOULDBLOCK) && operation == "lock":
		return "another agent holds " + place + ": stop it, or give each agent its own directory"
	case errors.Is(err, fs.ErrNotExist) && operation == "open":
		return "make this directory, or name another"
	case errors.Is(err, syscall.EIO):
		return "look into the kernel's log: the disk of " + place + " fails"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise LimitNOFILE= of the unit"
	}
	return ""
}
