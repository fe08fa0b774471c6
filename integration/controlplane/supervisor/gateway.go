package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// gateway lets a node reach the API server, which is on loopback.
type gateway struct {
	listener net.Listener
	to       string
	stop     context.CancelFunc
	work     sync.WaitGroup
}

// openGateway listens on an address of this machine that the node can reach, at
// the API server's own port.
func openGateway(address netip.Addr, port int) (*gateway, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("let the node reach the API server: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &gateway{listener: listener, to: loopback(port), stop: stop}
	g.work.Go(func() { g.serve(ctx) })
	return g, nil
}

func (g *gateway) serve(ctx context.Context) {
	for {
		from, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if pause(ctx, pollInterval) != nil {
				return
			}
			continue
		}
		g.work.Go(func() { g.forward(ctx, from.(*net.TCPConn)) })
	}
}

// forward joins two connections until both have ended, or the gateway has.
func (g *gateway) forward(ctx context.Context, from *net.TCPConn) {
	defer from.Close()
	connection, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", g.to)
	if err != nil {
		return // the node's client tries again
	}
	to := connection.(*net.TCPConn)
	defer to.Close()
	defer context.AfterFunc(ctx, func() { from.Close(); to.Close() })()
	var back sync.WaitGroup
	back.Go(func() { copyAll(from, to) })
	copyAll(to, from)
	back.Wait()
}

const dialTimeout = 5 * time.Second

// copyAll passes on what comes, and then its end.
func copyAll(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from) // an error is an end, too
	_ = to.CloseWrite()
}

func (g *gateway) close() error {
	g.stop()
	err := g.listener.Close()
	g.work.Wait()
	return err
}
