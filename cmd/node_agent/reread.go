package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
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
	value, others, err := daemon.ReadKey(file, keyEnforce)
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
	if open := e.cfg.Load().listeners; !slices.EqualFunc(cfg.listeners, open, listening.same) {
		return fmt.Errorf("configuration file %s: key enforce has other listeners than are open%s: restart the agent for these", file, added(file, cfg.listeners, open))
	}
	if err := e.connections.access.open(cfg.accessLog, e.format, e.log); err != nil {
		return err
	}
	e.cfg.Store(cfg)
	e.enforcer.Rule(cfg.rules())
	e.log.Info("key enforce of the configuration file counts as it is now", "file", file)
	if changed := differing(e.others, others); len(changed) > 0 {
		e.log.Warn("other keys of the configuration file are not those of the start: they count when the agent is restarted", "keys", strings.Join(changed, ", "))
	}
	e.tellRoom()
	return nil
}

// added are those listeners that are not open, in brackets; empty where some are gone
// alone.
func added(file string, all, open []listening) string {
	var keys []string
	for _, l := range all {
		if !slices.ContainsFunc(open, l.same) {
			keys = append(keys, strings.TrimPrefix(l.key, "configuration file "+file+", "))
		}
	}
	if keys == nil {
		return ""
	}
	return " (" + strings.Join(keys, ", ") + ")"
}

// differing are the keys that say something else, or stand in one of the two alone.
func differing(a, b map[string]string) (keys []string) {
	for _, one := range []map[string]string{a, b} {
		for key := range one {
			before, was := a[key]
			now, is := b[key]
			if was != is || before != now {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// same tells whether two are one, wherever the file says so.
func (l listening) same(other listening) bool {
	l.key, other.key = "", ""
	return l == other
}
