package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"citadel/cmd/internal/daemon"
)

// hangups has SIGHUP ask for the configuration to be read again. It never ends the
// agent any more.
func hangups() <-chan os.Signal {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	return asked
}

// rereads reads the configuration again when it is asked to, until ctx ends.
func (p *process) rereads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.hangups:
		}
		if p.enforcing == nil {
			p.log.Warn("SIGHUP has only key enforce of the configuration file read again, which is not there: restart the agent for all else")
			continue
		}
		if err := p.enforcing.reread(p.cfg.configFile); err != nil {
			p.log.Error("the configuration file was not taken over, and all stays as it was", "err", err)
		}
	}
}

// reread does as the file says now, from the next connection on, and opens the
// access log again. After an error all is as it was.
func (e *enforcing) reread(file string) error {
	value, err := daemon.ReadKey(file, "enforce")
	if err != nil {
		return err
	}
	if value == nil {
		return fmt.Errorf("configuration file %s: key enforce is gone: restart the agent to carry no connections", file)
	}
	cfg, problems := parseEnforce(file, value)
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if !slices.EqualFunc(cfg.listeners, e.cfg.Load().listeners, listening.same) {
		return fmt.Errorf("configuration file %s: key enforce has other listeners than are open: restart the agent for these", file)
	}
	if err := e.connections.access.open(cfg.accessLog, e.format, e.log); err != nil {
		return err
	}
	e.cfg.Store(cfg)
	e.enforcer.Rule(cfg.rules())
	e.log.Info("the configuration counts as it is now", "file", file)
	e.tellRoom()
	return nil
}

// same tells whether two are one, wherever the file says so.
func (l listening) same(other listening) bool {
	l.key, other.key = "", ""
	return l == other
}
