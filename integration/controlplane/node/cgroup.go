package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const cgroups = "/sys/fs/cgroup"

// hierarchies are the roots of the machine's control groups: one in version 2,
// one for each controller in version 1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, fmt.Errorf("find control groups: %w", err)
	}
	var roots []string
	for _, e := range entries {
		root := filepath.Join(cgroups, e.Name())
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil && e.IsDir() {
			roots = append(roots, root)
		}
	}
	return roots, nil
}

// makeCgroup makes the group that all pods of the node are in.
func makeCgroup(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a control group: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // version 1 has new groups without
			if err := inherit(root, dir, file); err != nil {
				return err
			}
		}
	}
	return nil
}

func inherit(root, dir, file string) error {
	value, err := os.ReadFile(filepath.Join(root, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, file), value, 0)
	}
	if err != nil {
		return fmt.Errorf("pass on %s to a control group: %w", file, err)
	}
	return nil
}

// Sweep removes the control group of a node with all below it, once their
// processes are gone, which the kernel sees to.
func Sweep(ctx context.Context, name string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		for {
			err := removeGroups(filepath.Join(root, name))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove a control group: %w", err)
			case <-time.After(sweepInterval):
			}
		}
	}
	return nil
}

const sweepInterval = 50 * time.Millisecond

// removeGroups removes a group, those below it first.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
