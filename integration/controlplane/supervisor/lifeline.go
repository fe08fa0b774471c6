package supervisor

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

// Lifeline is called by a process that runs a component. The channel closes when
// the process that started it is gone; it never does when that was not up. What
// waits for it lives as long as the process.
func Lifeline() (<-chan struct{}, error) {
	value, ok := os.LookupEnv(lifelineVariable)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", lifelineVariable, err)
	}
	if err := os.Unsetenv(lifelineVariable); err != nil {
		return nil, fmt.Errorf("forget %s: %w", lifelineVariable, err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		_, _ = io.Copy(io.Discard, os.NewFile(uintptr(fd), "lifeline")) // any end is the end
	}()
	return lost, nil
}
