package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// PolicyFolder holds what decides about mTLS: files of Kubernetes' objects.
const PolicyFolder = "policy"

// policyEvery is how soon an edit counts.
const policyEvery = 500 * time.Millisecond

// WatchPolicy feeds the objects of the files *.yaml, *.yml and *.json in
// PolicyFolder, which need not be there, until ctx ends. As long as one of them
// cannot be read, nothing changes: it may be half-written, and the folder is Unread. A
// ConfigMap istio is the mesh config in the namespace alone, and ignored in others.
// tell hears of both once.
func (d *Dir) WatchPolicy(ctx context.Context, namespace string, feed *policyfeed.Feed, tell func(error)) {
	w := policyFiles{dir: d, namespace: namespace, feed: feed, tell: tell}
	var told string
	for ticker := time.NewTicker(policyEvery); ; {
		err := w.look()
		w.heard(err, told)
		told = ""
		if err != nil {
			told = err.Error()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return
		}
	}
}

// policyFiles is what was read.
type policyFiles struct {
	dir       *Dir
	namespace string // of the mesh config
	feed      *policyfeed.Feed
	tell      func(error)
	stamp     string // of the files that were read last; empty before any
	held      map[policy.Ref]bool
	known     bool
}

// heard tells what keeps the files from being read, once. Agents hear of it if it was
// so at the look before, too: somebody may just be writing.
func (w *policyFiles) heard(why error, before string) {
	var change policyfeed.Change
	if why != nil && why.Error() != before {
		w.tell(fmt.Errorf("policy stays as it was: %w", why))
	}
	if why != nil && before != "" {
		change.Unread = []policyfeed.Unread{{What: "folder " + PolicyFolder, Old: w.known, Why: why.Error()}}
	}
	if before != "" {
		w.feed.Apply(change)
	}
}

// look reads the files if they are others than before.
func (w *policyFiles) look() error {
	folder, err := w.open()
	if err != nil {
		return err
	}
	defer folder.close()
	names, stamp, err := folder.policyNames()
	if err != nil || w.known && stamp == w.stamp {
		return err
	}
	objects, ignored, err := w.objects(folder, names)
	if err != nil {
		return err
	}
	change := policyfeed.Change{Put: objects, Known: true}
	found := map[policy.Ref]bool{}
	for _, o := range objects {
		found[o.Ref()] = true
	}
	for ref := range w.held {
		if !found[ref] {
			change.Gone = append(change.Gone, ref)
		}
	}
	w.feed.Apply(change)
	w.held, w.stamp, w.known = found, stamp, true
	for _, text := range ignored {
		w.tell(errors.New(text))
	}
	return nil
}

// objects reads files, and what of them does not count.
func (w *policyFiles) objects(from folder, names []string) (all []policy.Object, ignored []string, err error) {
	found := map[policy.Ref]bool{}
	for _, name := range names {
		text, _, err := from.read(name)
		if err == nil {
			text, err = policy.Dense(from.name(name), text)
		}
		if err != nil {
			return nil, nil, err
		}
		objects, err := policy.Decode(from.name(name), text)
		if err != nil {
			return nil, nil, err
		}
		objects, others, err := policy.OfMesh(w.namespace, objects)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", from.name(name), err)
		}
		for _, o := range objects {
			if found[o.Ref()] {
				return nil, nil, fmt.Errorf("%s: %s is there twice", from.name(name), o.Ref())
			}
			found[o.Ref()] = true
		}
		for _, text := range others {
			ignored = append(ignored, from.name(name)+": "+text)
		}
		all = append(all, objects...)
	}
	return all, ignored, nil
}

// open returns the folder; one that is not there is empty.
func (w *policyFiles) open() (folder, error) {
	f := folder{path: w.dir.name(PolicyFolder), before: w.dir.before}
	err := w.dir.try("open", PolicyFolder, func() (err error) {
		f.root, err = w.dir.root.OpenRoot(PolicyFolder)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	return f, err
}

// policyNames are the files that count, and what tells them from others.
func (f folder) policyNames() (names []string, stamp string, err error) {
	if f.root == nil {
		return nil, "none", nil
	}
	entries, err := f.list()
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	for _, name := range names {
		info, err := f.lstat(name)
		if err != nil {
			return nil, "", err
		}
		stamp += fmt.Sprintf("%s %d %d %s\n", name, info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	return names, stamp + "read", nil
}
