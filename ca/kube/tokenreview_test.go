package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca/authn"
)

func TestReview(t *testing.T) {
	extra := func(key string, values ...string) map[string]authenticationv1.ExtraValue {
		return map[string]authenticationv1.ExtraValue{key: values, "other": {"x", "y"}}
	}
	user := authenticationv1.UserInfo{Username: "system:serviceaccount:shop:web", UID: "u", Groups: []string{"g"}}
	withPod := user
	withPod.Extra = map[string]authenticationv1.ExtraValue{podNameExtra: {"web-0"}, podUIDExtra: {"p"}}
	twice := user
	twice.Extra = extra(podNameExtra, "web-0", "web-1")
	for name, c := range map[string]struct {
		status authenticationv1.TokenReviewStatus
		err    error
		want   authn.Reviewed
		fails  string
	}{
		"of a pod": {authenticationv1.TokenReviewStatus{Authenticated: true, User: withPod, Audiences: []string{"a"}}, nil,
			authn.Reviewed{Authenticated: true, User: user.Username, UID: "u", Groups: []string{"g"}, Audiences: []string{"a"}, PodName: "web-0", PodUID: "p"}, ""},
		"of no pod": {authenticationv1.TokenReviewStatus{Authenticated: true, User: user, Audiences: []string{"a"}}, nil,
			authn.Reviewed{Authenticated: true, User: user.Username, UID: "u", Groups: []string{"g"}, Audiences: []string{"a"}}, ""},
		"refused":     {authenticationv1.TokenReviewStatus{Error: "it is gone"}, nil, authn.Reviewed{}, ""},
		"of two pods": {authenticationv1.TokenReviewStatus{Authenticated: true, User: twice}, nil, authn.Reviewed{}, "names more than one pod"},
		"no right": {authenticationv1.TokenReviewStatus{}, apierrors.NewForbidden(schema.GroupResource{Resource: "tokenreviews"}, "", errors.New("RBAC")), authn.Reviewed{},
			authn.ErrMayNotReview.Error()},
		"cannot be had": {authenticationv1.TokenReviewStatus{}, errors.New("429"), authn.Reviewed{}, "429"},
	} {
		client := fake.NewSimpleClientset()
		client.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
			asked := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
			if asked.Spec.Token != "t" || !reflect.DeepEqual(asked.Spec.Audiences, []string{"a", "b"}) {
				t.Errorf("%s: asked for %+v", name, asked.Spec)
			}
			return true, &authenticationv1.TokenReview{Status: c.status}, c.err
		})
		got, err := Review(client)(t.Context(), "t", []string{"a", "b"})
		if !reflect.DeepEqual(got, c.want) || (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestTokenKeys come from the API server's own address, whatever the issuer's
// name is; and no answer is read without end.
func TestTokenKeys(t *testing.T) {
	const document = `{"issuer":"https://unreachable.example.org/id","jwks_uri":"https://unreachable.example.org/keys"}`
	for name, c := range map[string]struct {
		document, keys http.HandlerFunc
		err            string
	}{
		"published":     {say(document), say(`{"keys":[]}`), ""},
		"not published": {http.NotFound, say(`{"keys":[]}`), "GET /.well-known/openid-configuration of the API server: "},
		"no document":   {say("[]"), say(`{"keys":[]}`), "read the discovery document"},
		"no issuer":     {say("{}"), say(`{"keys":[]}`), "names no issuer"},
		"no keys":       {say(document), http.NotFound, "GET /openid/v1/jwks of the API server: "},
		"keys without end": {say(document), func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "GET /openid/v1/jwks of the API server: the answer is larger than 262144 bytes"},
		"overloaded": {say(document), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "GET /openid/v1/jwks"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET "+discoveryPath, c.document)
			mux.HandleFunc("GET "+keysPath, c.keys)
			server := httptest.NewServer(mux)
			defer server.Close()
			client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"}})
			if err != nil {
				t.Fatal(err)
			}
			issuer, keys, err := TokenKeys(client)(t.Context())
			switch {
			case c.err == "" && (err != nil || issuer != "https://unreachable.example.org/id" || string(keys) != `{"keys":[]}`):
				t.Errorf("%q, %q, %v", issuer, keys, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%v, want %q", err, c.err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := TokenKeys(client)(ended); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "json") {
			http.Error(w, "only JSON here", http.StatusNotAcceptable)
			return
		}
		fmt.Fprint(w, text)
	}
}
