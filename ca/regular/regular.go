// Package regular reads files whose names somebody else has chosen, in flags,
// configuration or rules. It refuses what has no end, and waits for nobody.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Longest is more than any configuration, token, chain or bundle needs.
const Longest = 1 << 20

// Read reads a regular file whole: not a pipe, which it would wait for, nor a
// device, nor what is larger than Longest. Its errors are of fs.PathError.
func Read(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is no regular file")}
	}
	text, err := io.ReadAll(io.LimitReader(file, Longest+1))
	if err == nil && len(text) > Longest {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("is larger than %d bytes", Longest)}
	}
	return text, err
}
