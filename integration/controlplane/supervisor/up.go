package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Settings are what a person chooses about a control plane.
type Settings struct {
	Dir        string    // state, keys and logs; made when missing
	Kubeconfig string    // where the administrator's access goes; "" is Dir/kubeconfig
	Audit      bool      // write Dir/audit.log
	Node       bool      // run pods; needs root and node.Packages
	Ready      io.Writer // gets one line when the cluster can be used
	Messages   io.Writer // gets lines for people
}

// Up runs a control plane until the context ends or a client asks for its end,
// and returns when all its processes are gone. It makes this process's new files
// private, for good, and its components' as well.
func Up(ctx context.Context, settings Settings) (err error) {
	unix.Umask(0o077)
	l, err := newLayout(settings.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.logs(), 0o700); err != nil {
		return fmt.Errorf("make the directory of the cluster: %w", err)
	}
	lock, err := lockDir(ctx, l)
	if err != nil {
		return err
	}
	defer lock.Close()
	p, held, err := reservePorts(ctx, l)
	if err != nil {
		return err
	}
	defer held.release()
	if err := writeFiles(l, p, settings); err != nil {
		return err
	}
	s, err := newSupervisor(l, p, settings, lock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.spawner.close()) }()
	if settings.Node {
		if err := s.addNode(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.node.close()) }()
	}
	return s.run(ctx, settings.Ready)
}

// writeFiles writes what components and people read.
func writeFiles(l layout, p ports, settings Settings) error {
	if err := ensurePKI(l, time.Now()); err != nil {
		return err
	}
	admin := settings.Kubeconfig
	if admin == "" {
		admin = l.kubeconfig()
	}
	return errors.Join(
		writeKubeconfig(l, loopback(p.APIServer), adminName, admin),
		writeKubeconfig(l, loopback(p.APIServer), managerName, l.managerKubeconfig()),
		replaceFile(l.admission(), []byte(admissionText)),
		writeAuditPolicy(l))
}

func newSupervisor(l layout, p ports, settings Settings, lock *os.File) (*supervisor, error) {
	probes, err := newProbes(l, p)
	if err != nil {
		return nil, err
	}
	spawner, err := newSpawner(lock)
	if err != nil {
		return nil, err
	}
	return &supervisor{
		layout: l,
		args: map[Component][]string{
			Etcd:              etcdArgs(l, p),
			APIServer:         apiServerArgs(l, p, settings.Audit),
			ControllerManager: controllerManagerArgs(l, p),
		},
		probes:    probes,
		spawner:   spawner,
		messages:  log.New(settings.Messages, "controlplane: ", 0),
		turn:      make(chan struct{}, 1),
		processes: make(map[Component]*process),
	}, nil
}

// run is the life of a control plane.
func (s *supervisor) run(ctx context.Context, ready io.Writer) error {
	ctx, down := context.WithCancel(ctx)
	defer down()
	socket, err := openControlSocket(s.layout)
	if err != nil {
		return err
	}
	defer socket.close()
	listener, err := socket.listen()
	if err != nil {
		return err
	}
	var control sync.WaitGroup
	control.Go(func() {
		if err := serveControl(ctx, listener, s.handler(down)); err != nil {
			s.messages.Print(err)
		}
	})

	err = s.startAll(ctx)
	if err == nil {
		_, err = fmt.Fprintln(ready, "ready")
	}
	if err == nil {
		<-ctx.Done()
	} else if ctx.Err() != nil {
		err = nil // told to end while starting
	}
	down()
	control.Wait()
	return errors.Join(err, s.stopAll())
}

// handler carries out control requests; down ends the control plane.
func (s *supervisor) handler(down func()) func(context.Context, request) error {
	return func(ctx context.Context, asked request) error {
		switch asked.Action {
		case actionStart:
			return s.start(ctx, asked.Component)
		case actionStop:
			return s.stop(ctx, asked.Component, func(p *process) error { return p.stop(gracePeriod) })
		case actionKill:
			return s.stop(ctx, asked.Component, (*process).kill)
		case actionDown:
			down()
			return nil
		}
		return fmt.Errorf("unknown request %q", asked.Action)
	}
}
