package caclient

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"citadel/ca/policy"
	citadelv1 "citadel/proto/citadel/v1"
)

// FuzzPolicyUpdate: whatever a server sends is refused, or usable whole.
func FuzzPolicyUpdate(f *testing.F) {
	for _, message := range []*citadelv1.WatchPolicyResponse{
		{Complete: true, Generation: "v1", Version: "x.1", Snapshot: true, Objects: [][]byte{[]byte(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"s","namespace":"a"}}`)}},
		{Complete: true, Generation: "legacy", Removed: []*citadelv1.ObjectName{{Kind: "Pod", Namespace: "a", Name: "p"}}, ReplacedBuckets: []uint32{0, 1023}},
		{Complete: true, Generation: "auto"},
		{Complete: true, Generation: "v1", Unread: []string{"Pod", "ConfigMap istio"}},
		{Complete: true, Generation: "v1", Unread: []string{"\x1b[2J"}},
		{Objects: [][]byte{[]byte("kind: List\napiVersion: v1\nitems: []")}},
		{ReplacedBuckets: []uint32{1024}},
		{Removed: []*citadelv1.ObjectName{{Kind: "Secret"}}},
	} {
		text, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		part := &citadelv1.WatchPolicyResponse{}
		if proto.Unmarshal(text, part) != nil {
			return
		}
		var u PolicyUpdate
		size := 0
		if u.add(part, &size) != nil {
			return
		}
		var objects []policy.Object
		for _, item := range u.Objects {
			objects = append(objects, item.Object)
		}
		if part.GetComplete() && u.Generation == policy.Auto {
			t.Error("an update does not say whose rules answer")
		}
		if strings.Contains(strings.Join(u.Unread, ""), "\x1b") {
			t.Errorf("a terminal would heed %q", u.Unread)
		}
		policy.New(u.Generation, objects...).Without(u.Removed...)
	})
}
