package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// mark is a moment of the API server. Its audit log has the requests that came
// after it behind offset; requests that were answered just before may be there
// too, as the log is written after the answer.
type mark struct {
	offset int64
	at     time.Time
}

func auditLog() string { return filepath.Join(plane.Dir, "audit.log") }

// now is a mark behind every request whose effect has been seen.
func now(t testing.TB) mark {
	t.Helper()
	return mark{offset: auditSize(t), at: time.Now()}
}

func auditSize(t testing.TB) int64 {
	t.Helper()
	info, err := os.Stat(auditLog())
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// request is one that the API server has answered.
type request struct {
	Stage string
	Verb  string
	User  struct{ Username string }

	ObjectRef struct{ APIGroup, Resource, Subresource, Namespace, Name string }

	ResponseStatus struct{ Code int }
	Annotations    map[string]string

	RequestReceivedTimestamp time.Time
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %s/%s: %d", r.Verb, r.ObjectRef.Resource, r.ObjectRef.Namespace, r.ObjectRef.Name, r.ResponseStatus.Code)
}

// forbidden tells a lack of rights from what the API server forbids anyone.
func (r request) forbidden() bool {
	return r.ResponseStatus.Code == http.StatusForbidden && r.Annotations["authorization.k8s.io/decision"] == "forbid"
}

func (r request) writes() bool {
	return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, r.Verb)
}

func (r request) done() bool { return r.ResponseStatus.Code/100 == 2 }

// of tells whether the request is about an object; an empty word means any.
func (r request) of(resource, namespace, name string) bool {
	fits := func(want, got string) bool { return want == "" || want == got }
	return fits(resource, r.ObjectRef.Resource) && fits(namespace, r.ObjectRef.Namespace) && fits(name, r.ObjectRef.Name)
}

// requests are those of a user since a mark, oldest first.
func requests(t testing.TB, since mark, user string) []request {
	t.Helper()
	file := must(os.Open(auditLog()))(t)
	defer file.Close()
	text := make([]byte, auditSize(t)-since.offset)
	if _, err := file.ReadAt(text, since.offset); err != nil {
		t.Fatal(err)
	}
	wanted := []byte(`"username":"` + user + `"`)
	var out []request
	for line := range bytes.Lines(text) {
		whole := bytes.HasPrefix(line, []byte(`{"kind":"Event"`)) && bytes.HasSuffix(line, []byte("\n"))
		if !whole || !bytes.Contains(line, wanted) {
			continue // of somebody else, or just being written at one of the ends
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("line %q of the audit log: %v", line, err)
		}
		if answered := r.Stage == "ResponseComplete" || r.Stage == "Panic"; answered && !r.RequestReceivedTimestamp.Before(since.at) {
			out = append(out, r)
		}
	}
	return out
}

// writes are the requests of a user that changed an object, or tried to.
func writes(t testing.TB, since mark, user, resource, namespace, name string) []request {
	t.Helper()
	return slices.DeleteFunc(requests(t, since, user), func(r request) bool { return !r.writes() || !r.of(resource, namespace, name) })
}

// verbs are the writes that came to something, in short.
func verbs(all []request) []string {
	var out []string
	for _, r := range all {
		if r.done() {
			out = append(out, r.Verb)
		}
	}
	return out
}
