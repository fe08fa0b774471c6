package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// action is what a request asks of a running up.
type action string

const (
	actionStart action = "start"
	actionStop  action = "stop"
	actionKill  action = "kill"
	actionDown  action = "down"
)

// request is the one message from a client on a control connection; reply is the
// one back, when the action is done.
type (
	request struct {
		Action    action    `json:"action"`
		Component Component `json:"component,omitempty"`
	}
	reply struct {
		Error string `json:"error,omitempty"`
	}
)

// requestTimeout is how long a client may take to say what it wants.
const requestTimeout = 10 * time.Second

// controlSocket is where up listens, in a directory of any length: the path of a
// socket has 108 bytes at most, so it is named from an open directory.
type controlSocket struct{ dir *os.File }

func openControlSocket(l layout) (*controlSocket, error) {
	dir, err := os.Open(l.dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of the cluster: %w", err)
	}
	return &controlSocket{dir}, nil
}

func (c *controlSocket) path() string {
	return fmt.Sprintf("/proc/self/fd/%d/control", c.dir.Fd())
}

func (c *controlSocket) close() error { return c.dir.Close() }

// listen takes the place of a socket that a killed up left behind: who listens
// holds the lock of the directory.
func (c *controlSocket) listen() (net.Listener, error) {
	if err := os.Remove(c.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the former control socket: %w", err)
	}
	listener, err := net.Listen("unix", c.path())
	if err != nil {
		return nil, fmt.Errorf("listen for control requests: %w", err)
	}
	return listener, nil
}

// serveControl answers control connections until the context ends, and returns
// when the last answer is given: nil, or why it ended early.
func serveControl(ctx context.Context, listener net.Listener, handle func(context.Context, request) error) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		connection, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept control requests: %w", err)
		}
		connections.Go(func() {
			defer connection.Close()
			answer(ctx, connection, handle)
		})
	}
}

// answer carries out the one request of a connection. A client that has gone
// away meanwhile misses the reply and nothing else.
func answer(ctx context.Context, connection net.Conn, handle func(context.Context, request) error) {
	_ = connection.SetReadDeadline(time.Now().Add(requestTimeout)) // a socket can
	var asked request
	var said reply
	err := json.NewDecoder(connection).Decode(&asked)
	if err == nil {
		err = handle(ctx, asked)
	}
	if err != nil {
		said.Error = err.Error()
	}
	_ = json.NewEncoder(connection).Encode(said)
}
