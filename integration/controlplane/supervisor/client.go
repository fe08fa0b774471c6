package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
)

// Start brings back a stopped component of the control plane that runs on dir,
// and returns when it is ready.
func Start(ctx context.Context, dir string, c Component) error {
	return ask(ctx, dir, request{actionStart, c})
}

// Stop asks a component to end, and returns when its process is gone.
func Stop(ctx context.Context, dir string, c Component) error {
	return ask(ctx, dir, request{actionStop, c})
}

// Kill ends a component without asking, and returns when its process is gone.
func Kill(ctx context.Context, dir string, c Component) error {
	return ask(ctx, dir, request{actionKill, c})
}

// Down stops the control plane that runs on dir, and returns when up is gone.
func Down(ctx context.Context, dir string) error {
	if err := ask(ctx, dir, request{Action: actionDown}); err != nil {
		return err
	}
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	return awaitUnlocked(ctx, l)
}

// ask sends a request to the up that runs on dir, and waits for its reply.
func ask(ctx context.Context, dir string, asked request) error {
	connection, err := dialControl(ctx, dir)
	if err != nil {
		return err
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	if err := json.NewEncoder(connection).Encode(asked); err != nil {
		return fmt.Errorf("send a request to up: %w", err)
	}
	var said reply
	if err := json.NewDecoder(connection).Decode(&said); err != nil {
		return fmt.Errorf("wait for up to %s %s: %w", asked.Action, asked.Component, errors.Join(context.Cause(ctx), err))
	}
	if said.Error != "" {
		return errors.New(said.Error)
	}
	return nil
}

func dialControl(ctx context.Context, dir string) (net.Conn, error) {
	l, err := newLayout(dir)
	if err != nil {
		return nil, err
	}
	socket, err := openControlSocket(l)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotRunning(l)
	}
	if err != nil {
		return nil, err
	}
	defer socket.close()
	connection, err := new(net.Dialer).DialContext(ctx, "unix", socket.path())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, errNotRunning(l)
	}
	if err != nil {
		return nil, fmt.Errorf("reach the control plane on %s: %w", l.dir, err)
	}
	return connection, nil
}

func errNotRunning(l layout) error {
	return fmt.Errorf("no control plane runs on %s; start one with 'controlplane up --dir %s'", l.dir, l.dir)
}
