package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK          = 0
	exitWrong       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnreachable = 5
)

const exitCodeHelp = `  0  done; of status, check, verify and inspect: all is right; of policy: OK, valid, passed, nothing breaks
  1  what was looked at is wrong (of status, check, verify and inspect), or could not be read; of policy: it is not so
  2  the command line or the kubeconfig is wrong; of policy: the mesh config cannot be read
  3  a file, Secret, namespace or join token that was named does not exist; of policy: a client or server
  4  permission was denied (of status, check and policy: for a part, and nothing wrong was found)
  5  the API server could not be reached, or could not answer now
`

// codedError is an error that decides the exit code.
type codedError struct {
	code int
	err  error
}

func (e codedError) Error() string { return e.err.Error() }
func (e codedError) Unwrap() error { return e.err }

// errWrong says that the data, already on standard output, tells of something
// wrong: nothing is to be added.
var errWrong = errors.New("something is wrong")

// usageError is a mistake on the command line.
func usageError(cmd *cobra.Command, err error) error {
	return codedError{exitUsage, fmt.Errorf("%w\nSee '%s --help'", err, cmd.CommandPath())}
}

// fileError gives the errors of files their exit codes.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return codedError{exitNotFound, err}
	case errors.Is(err, fs.ErrPermission):
		return codedError{exitDenied, err}
	}
	return err
}

// exitCode tells the error, where there is something to tell.
func exitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errWrong):
		return exitWrong
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "citadelctl: interrupted")
		return exitWrong
	}
	for n, line := range strings.Split(err.Error(), "\n") {
		if n == 0 {
			line = "citadelctl: " + line
		}
		fmt.Fprintln(stderr, printable(line))
	}
	if coded, ok := errors.AsType[codedError](err); ok {
		return coded.code
	}
	return exitWrong
}
