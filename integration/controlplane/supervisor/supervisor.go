package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"
)

// startPeriod is how long a component may take until it is ready, on a machine
// that does much else.
const startPeriod = 3 * time.Minute

// supervisor owns the components of one cluster.
type supervisor struct {
	layout   layout
	args     map[Component][]string // of the components that this cluster has
	node     *nodeSide              // nil in a cluster without one
	probes   *probes
	spawner  *spawner
	messages *log.Logger

	turn      chan struct{}          // holds a token while somebody starts or stops components
	processes map[Component]*process // the last run of each; only with the turn
	reporters sync.WaitGroup         // what waits for unexpected ends
}

// startAll brings up the whole control plane. It leaves to the caller what has
// started when something has not.
func (s *supervisor) startAll(ctx context.Context) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	for _, c := range s.components() {
		if err := s.launch(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// components are those that this cluster has, in the order in which they start.
func (s *supervisor) components() []Component {
	return slices.DeleteFunc(slices.Clone(startOrder), func(c Component) bool { return s.args[c] == nil })
}

// stopAll ends what runs, in the reverse of the order in which it started.
func (s *supervisor) stopAll() error {
	s.turn <- struct{}{} // nobody keeps it long
	defer s.endTurn()
	var failures []error
	for i := len(startOrder) - 1; i >= 0; i-- {
		if p := s.processes[startOrder[i]]; p != nil && p.running() {
			s.messages.Printf("stopping %s", startOrder[i])
			failures = append(failures, p.stop(gracePeriod))
		}
	}
	s.reporters.Wait()
	return errors.Join(failures...)
}

// start brings back one component, and returns when it is ready and those that
// run on top of it are again.
func (s *supervisor) start(ctx context.Context, c Component) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	if s.args[c] == nil {
		return fmt.Errorf("this cluster has no %s: 'up --node' gives it one", c)
	}
	if p := s.processes[c]; p != nil && p.running() {
		return fmt.Errorf("%s runs already (process %d)", c, p.command.Process.Pid)
	}
	if err := s.launch(ctx, c); err != nil {
		return err
	}
	return s.awaitOthers(ctx, c)
}

// stop ends one component with the function given, and returns when it is gone.
func (s *supervisor) stop(ctx context.Context, c Component, end func(*process) error) error {
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.endTurn()
	p := s.processes[c]
	if p == nil || !p.running() {
		return fmt.Errorf("%s does not run", c)
	}
	s.messages.Printf("stopping %s", c)
	return end(p)
}

// launch starts a component and waits until it is ready. One that does not get
// there is ended.
func (s *supervisor) launch(ctx context.Context, c Component) error {
	begin := time.Now()
	if c == Node {
		if err := s.node.node.Forget(); err != nil {
			return err
		}
	}
	p, err := s.spawner.spawn(c, s.args[c], s.layout.log(c))
	if err != nil {
		return err
	}
	s.processes[c] = p
	s.messages.Printf("starting %s (process %d, log %s)", c, p.command.Process.Pid, p.log)
	if c == Node {
		err = s.node.connect(ctx, p)
	}
	if err == nil {
		err = s.awaitReady(ctx, c, p)
	}
	if err == nil && c == Containerd {
		err = s.node.importPause(ctx)
	}
	if err != nil {
		return errors.Join(err, p.kill())
	}
	s.messages.Printf("%s is ready after %v", c, time.Since(begin).Round(time.Millisecond))
	s.reporters.Go(func() { s.report(c, p) })
	return nil
}

// awaitReady returns nil once the component is ready, and an error at once when
// it ends before that.
func (s *supervisor) awaitReady(ctx context.Context, c Component, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPeriod, fmt.Errorf("no success in %v", startPeriod))
	defer cancel()
	var unready error // what the last whole probe found
	for {
		found := s.probes.ready(ctx, c)
		if ctx.Err() == nil {
			unready = found
		}
		if !p.running() {
			return fmt.Errorf("%s ended before it was ready: %s; its log %s ends with\n%s", c, p.ending(), p.log, p.logTail())
		}
		if found == nil {
			return nil
		}
		if err := pause(ctx, pollInterval); err != nil {
			return fmt.Errorf("wait for %s: %w (last: %v); its log is %s", c, err, unready, p.log)
		}
	}
}

// awaitOthers returns when the components that build on c are ready, up to the
// first that does not run: those above it cannot be.
func (s *supervisor) awaitOthers(ctx context.Context, c Component) error {
	all := s.components()
	for _, other := range all[slices.Index(all, c)+1:] {
		p := s.processes[other]
		if p == nil || !p.running() {
			return nil
		}
		if err := s.awaitReady(ctx, other, p); err != nil {
			return fmt.Errorf("%s is ready, but not what builds on it: %w", c, err)
		}
	}
	return nil
}

// report says when a component ends that nobody stopped.
func (s *supervisor) report(c Component, p *process) {
	select {
	case <-p.stopping:
		return
	case <-p.exited:
	}
	select {
	case <-p.stopping:
	default:
		s.messages.Printf("%s died: %s; its log is %s; bring it back with 'controlplane start --dir %s %s'",
			c, p.ending(), p.log, s.layout.dir, c)
	}
}

// takeTurn waits until nobody else starts or stops components.
func (s *supervisor) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *supervisor) endTurn() { <-s.turn }
