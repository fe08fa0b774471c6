package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ports are the loopback ports of a cluster. They are chosen once, since clients
// keep the address of their API server.
type ports struct {
	Etcd              int `json:"etcd"`
	EtcdPeer          int `json:"etcdPeer"`
	APIServer         int `json:"apiServer"`
	ControllerManager int `json:"controllerManager"`
	Scheduler         int `json:"scheduler"`
}

func (p ports) all() map[string]int {
	return map[string]int{
		"etcd":                    p.Etcd,
		"etcd's peers":            p.EtcdPeer,
		"kube-apiserver":          p.APIServer,
		"kube-controller-manager": p.ControllerManager,
		"kube-scheduler":          p.Scheduler,
	}
}

// New ports come from between the well-known ones and those that the kernel
// gives to outgoing connections and Kubernetes to NodePorts, so that they are
// likely to be free the next time as well.
const (
	lowestPort  = 20000
	highestPort = 29999
)

// reservation keeps the ports of a cluster for its components, also while one
// of those is stopped: sockets that are bound but never listen, and that share
// their port with listeners of the same user that ask for it (SO_REUSEPORT).
type reservation struct{ sockets []int }

// reservePorts returns the ports of the cluster, which it chooses if there are
// none yet, and holds them.
func reservePorts(ctx context.Context, l layout) (ports, *reservation, error) {
	data, err := os.ReadFile(l.ports())
	if errors.Is(err, fs.ErrNotExist) {
		return choosePorts(l)
	}
	if err != nil {
		return ports{}, nil, fmt.Errorf("read the ports: %w", err)
	}
	var p ports
	if err := json.Unmarshal(data, &p); err != nil {
		return ports{}, nil, fmt.Errorf("read the ports in %s: %w", l.ports(), err)
	}
	held := new(reservation)
	for name, port := range p.all() {
		if err := held.addPatiently(ctx, port); err != nil {
			held.release()
			return ports{}, nil, fmt.Errorf("port %d of %s is taken by another program, which must end before this cluster can run: %w", port, name, err)
		}
	}
	return p, held, nil
}

func choosePorts(l layout) (ports, *reservation, error) {
	var p ports
	held := new(reservation)
	for _, port := range []*int{&p.Etcd, &p.EtcdPeer, &p.APIServer, &p.ControllerManager, &p.Scheduler} {
		var err error
		if *port, err = held.addAny(); err != nil {
			held.release()
			return ports{}, nil, err
		}
	}
	data, err := json.Marshal(p)
	if err == nil {
		err = replaceFile(l.ports(), append(data, '\n'))
	}
	if err != nil {
		held.release()
		return ports{}, nil, fmt.Errorf("keep the ports: %w", err)
	}
	return p, held, nil
}

// addAny holds a free port.
func (r *reservation) addAny() (int, error) {
	var err error
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if err = r.add(port); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port from %d to %d: %w", lowestPort, highestPort, err)
}

// endPeriod is how long what is left of a killed up may take to let go of its
// ports: the kernel ends the components a little later.
const endPeriod = 5 * time.Second

// addPatiently holds a port that may still be in the hands of what has just ended.
func (r *reservation) addPatiently(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, endPeriod)
	defer cancel()
	for {
		err := r.add(port)
		if err == nil || pause(ctx, pollInterval) != nil {
			return err
		}
	}
}

// add holds one port. It asks as any other program would first, since a socket
// that may share its port also gets one that another cluster holds.
func (r *reservation) add(port int) error {
	listener, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return err
	}
	if err := listener.Close(); err != nil {
		return fmt.Errorf("release port %d: %w", port, err)
	}
	socket, err := bindShared(port)
	if err != nil {
		return fmt.Errorf("bind port %d: %w", port, err)
	}
	r.sockets = append(r.sockets, socket)
	return nil
}

// bindShared binds a socket to a loopback port that it shares with listeners.
func bindShared(port int) (socket int, err error) {
	socket, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(socket, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		unix.Close(socket)
		return 0, err
	}
	return socket, nil
}

func (r *reservation) release() {
	for _, socket := range r.sockets {
		unix.Close(socket)
	}
	r.sockets = nil
}

// loopback is the address of a port on this machine.
func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
