package enforce

import (
	"sync"
	"sync/atomic"
	"syscall"
)

// The kernel carries by pipes, each of two files. Where those that it may have are
// taken, bytes are copied.

// PipeFiles is how many of the files that the agent may have open are for pipes.
func PipeFiles(files uint64) uint64 { return files / 8 }

var (
	pipesOpen atomic.Int64
	mostPipes = sync.OnceValue(func() int64 {
		var files syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			return 0
		}
		return int64(PipeFiles(min(files.Cur, 1<<30)) / 2)
	})
)

// takePipe takes one until leave is called, if there is one.
func takePipe() (leave func(), ok bool) {
	if pipesOpen.Add(1) > mostPipes() {
		pipesOpen.Add(-1)
		return nil, false
	}
	return func() { pipesOpen.Add(-1) }, true
}
