package caserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"google.golang.org/grpc/codes"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectiongrpc "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/catest"
	"citadel/ca/trust"
	citadelv1 "citadel/proto/citadel/v1"
	auth "citadel/proto/istio/v1/auth"
)

func csr(t *testing.T, edits ...func(*x509.CertificateRequest)) string {
	t.Helper()
	return string(catest.CSRPEM(catest.CSR(t, catest.Key(t, trust.ECDSAP256, "requested"), edits...)))
}

func parse(t *testing.T, text string) []*x509.Certificate {
	t.Helper()
	certs, err := trust.ParseCertificates([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

// TestReplyOfCreateCertificate: one certificate per element, leaf first, roots
// last (compatibility 4.2, 6.3).
func TestReplyOfCreateCertificate(t *testing.T) {
	r := newRig(t)
	conn := r.dial(r.client())
	reply, err := auth.NewIstioCertificateServiceClient(conn).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t), ValidityDuration: 86400,
		SubjectId: "ignored", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"CertSigner": structpb.NewStringValue("")}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.GetCertChain()) != 3 {
		t.Fatalf("%d elements", len(reply.GetCertChain()))
	}
	for i, text := range reply.GetCertChain() {
		if block, rest := pem.Decode([]byte(text)); block == nil || len(rest) > 0 || !strings.HasSuffix(text, "\n") {
			t.Errorf("element %d is not one certificate with a newline: %q", i, text)
		}
	}
	leaf, signer, root := parse(t, reply.CertChain[0])[0], parse(t, reply.CertChain[1])[0], parse(t, reply.CertChain[2])[0]
	if !signer.Equal(r.issuer.Cert) || !root.Equal(r.issuer.Root().Cert) {
		t.Error("the chain is not leaf, signer, root")
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore) - trust.Backdate; life.Round(time.Minute) != 24*time.Hour || leaf.URIs[0].String() != sleep.String() {
		t.Errorf("%s for %s", leaf.URIs[0], life)
	}
	if c := r.last(); c.Err != nil || c.Caller != sleep || c.Identity != sleep || c.Address == "" || len(c.Tried) != 1 || c.Took <= 0 {
		t.Errorf("observed %+v", c)
	}
}

// TestReplyOfHandleCSR: the ancestors' agents get the root in no reply
// (compatibility 4.1).
func TestReplyOfHandleCSR(t *testing.T) {
	r := newRig(t)
	client := auth.NewIstioCAServiceClient(r.dial(r.client()))
	own := func(c *x509.CertificateRequest) {
		c.URIs = append(c.URIs, sleep.URL())
		c.Subject.Organization = []string{"Juju org"}
	}
	reply, err := client.HandleCSR(t.Context(), &auth.CsrRequest{CsrPem: []byte(csr(t, own)), NodeAgentCredential: []byte("x"), CredentialType: "onprem", RequestedTtlMinutes: 60})
	if err != nil {
		t.Fatal(err)
	}
	leaf, chain := parse(t, string(reply.GetSignedCert())), parse(t, string(reply.GetCertChain()))
	if !reply.GetIsApproved() || reply.GetStatus() != nil || len(leaf) != 1 || len(chain) != 1 || !chain[0].Equal(r.issuer.Cert) {
		t.Errorf("reply %v", reply)
	}
	if life := leaf[0].NotAfter.Sub(leaf[0].NotBefore) - trust.Backdate; life.Round(time.Minute) != time.Hour {
		t.Errorf("life %s", life)
	}
	if _, err := client.HandleCSR(t.Context(), &auth.CsrRequest{CsrPem: []byte(csr(t)), ForCA: true}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("for a CA: %v", err)
	}
}

// TestWhatIsRefused: code, class and sentence; and the log has what the client
// was not told, under the reference that it was.
func TestWhatIsRefused(t *testing.T) {
	banned := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/banned")
	r := newRig(t, func(s *Settings) {
		bans, err := ca.NewBans(map[string]string{banned.String(): "stolen"})
		if err != nil {
			t.Fatal(err)
		}
		s.Authority.SetBans(bans)
	})
	for name, c := range map[string]struct {
		client *catest.Issuer
		word   string
		req    *auth.IstioCertificateRequest
		code   codes.Code
		text   string
	}{
		"nobody":               {nil, "", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.Unauthenticated, "UNAUTHENTICATED: request authenticate failure: no proof of identity is given; any of these would do: client certificate, word"},
		"wrong word":           {nil, "wrong", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.Unauthenticated, "word: the word is wrong"},
		"cannot be checked":    {nil, "down", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.Unavailable, "NOT_CHECKED"},
		"no right to check":    {nil, "no right", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.Unavailable, "NOT_CHECKED: citadel has no right to create tokenreviews.authentication.k8s.io, without which it takes no Kubernetes tokens: have it given"},
		"panic":                {nil, "panic", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.Internal, "INTERNAL: the server failed"},
		"banned":               {r.issuer.Leaf(t, time.Now(), banned), "", &auth.IstioCertificateRequest{Csr: csr(t)}, codes.PermissionDenied, "DENIED: identity " + banned.String() + " is banned (stolen)"},
		"no CSR":               {r.client(), "", &auth.IstioCertificateRequest{}, codes.InvalidArgument, "CSR_ERROR"},
		"above the maximum":    {r.client(), "", &auth.IstioCertificateRequest{Csr: csr(t), ValidityDuration: 604801}, codes.InvalidArgument, "TTL_ERROR: requested TTL 168h0m1s is greater than the max allowed TTL 168h0m0s"},
		"beyond all durations": {r.client(), "", &auth.IstioCertificateRequest{Csr: csr(t), ValidityDuration: math.MaxInt64}, codes.InvalidArgument, "TTL_ERROR"},
		"somebody else's name": {r.client(), "", &auth.IstioCertificateRequest{Csr: csr(t, func(c *x509.CertificateRequest) { c.DNSNames = []string{"istio-citadel"} })},
			codes.InvalidArgument, `CSR_ERROR: certificate request asks for DNS name "istio-citadel"`},
		"impersonation": {r.client(), "", &auth.IstioCertificateRequest{Csr: csr(t), Metadata: impersonating("spiffe://cluster.local/ns/default/sa/x")},
			codes.Unauthenticated, "request impersonation authentication failure: no service account may ask"},
		"impersonation of nobody": {r.client(), "", &auth.IstioCertificateRequest{Csr: csr(t), Metadata: impersonating("x")}, codes.InvalidArgument, "ImpersonatedIdentity is no SPIFFE ID"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if c.word != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "bearer "+c.word)
			}
			_, err := auth.NewIstioCertificateServiceClient(r.dial(c.client)).CreateCertificate(ctx, c.req)
			st := status.Convert(err)
			if st.Code() != c.code || !strings.Contains(st.Message(), c.text) {
				t.Errorf("%v, want %s with %q", err, c.code, c.text)
			}
			seen := r.last()
			if seen.Ref == "" || !strings.HasSuffix(st.Message(), "(ref "+seen.Ref+")") || seen.Err == nil || seen.Code != c.code {
				t.Errorf("observed %+v", seen)
			}
			if strings.Contains(st.Message(), "secret cause") || strings.Contains(st.Message(), "goroutine") {
				t.Errorf("the client was told too much: %s", st.Message())
			}
			if info := detail[*errdetails.ErrorInfo](st); info.GetMetadata()["ref"] != seen.Ref || info.GetDomain() != "citadel" {
				t.Errorf("details %v", st.Details())
			}
		})
	}
}

func impersonating(id string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(id)}}
}

func detail[T any](st *status.Status) T {
	for _, d := range st.Details() {
		if found, ok := d.(T); ok {
			return found
		}
	}
	var none T
	return none
}

func TestSmallNumbersMeanTheDefaultLife(t *testing.T) { // negative test 8
	r := newRig(t)
	client := auth.NewIstioCertificateServiceClient(r.dial(r.client()))
	for _, n := range []int64{0, -1, math.MinInt64} {
		reply, err := client.CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t), ValidityDuration: n})
		if err != nil {
			t.Fatal(err)
		}
		if leaf := parse(t, reply.CertChain[0])[0]; leaf.NotAfter.Sub(leaf.NotBefore)-trust.Backdate != 19*time.Hour {
			t.Errorf("%d: until %s", n, leaf.NotAfter)
		}
	}
}

func TestMinutesThatOverflow(t *testing.T) { // negative test 8
	r := newRig(t)
	client := auth.NewIstioCAServiceClient(r.dial(r.client()))
	for _, n := range []int32{10081, 153722868, 153722900, 307445735, math.MaxInt32} {
		if _, err := client.HandleCSR(t.Context(), &auth.CsrRequest{CsrPem: []byte(csr(t)), RequestedTtlMinutes: n}); err == nil || !strings.Contains(err.Error(), "TTL_ERROR") {
			t.Errorf("%d minutes: %v", n, err)
		}
	}
}

func TestImpersonation(t *testing.T) {
	workload := spiffeid.RequireFromString("spiffe://cluster.local/ns/web/sa/shop")
	var asked []authn.Identity
	r := newRig(t, func(s *Settings) {
		s.MayImpersonate = func(_ context.Context, node authn.Identity, id spiffeid.ID) error {
			asked = append(asked, node)
			if id != workload {
				return &ca.Error{Class: ca.Denied, Reason: "no pod of it runs on the node"}
			}
			return nil
		}
	})
	client := auth.NewIstioCertificateServiceClient(r.dial(nil))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer node", "clusterid", "Kubernetes")
	reply, err := client.CreateCertificate(ctx, &auth.IstioCertificateRequest{Csr: csr(t), Metadata: impersonating(workload.String())})
	if err != nil {
		t.Fatal(err)
	}
	if leaf := parse(t, reply.CertChain[0])[0]; leaf.URIs[0].String() != workload.String() {
		t.Errorf("for %s", leaf.URIs[0])
	}
	if c := r.last(); c.Identity != workload || c.Caller.Path() != "/ns/istio-system/sa/ztunnel" || asked[0].Pod.UID != "1" {
		t.Errorf("observed %+v", c)
	}
	_, err = client.CreateCertificate(ctx, &auth.IstioCertificateRequest{Csr: csr(t), Metadata: impersonating(sleep.String())})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "request impersonation authentication failure: no pod of it runs") {
		t.Errorf("%v", err)
	}
	bans, err := ca.NewBans(map[string]string{"spiffe://cluster.local/ns/istio-system/sa/ztunnel": ""})
	if err != nil {
		t.Fatal(err)
	}
	r.server.set.Authority.SetBans(bans)
	_, err = client.CreateCertificate(ctx, &auth.IstioCertificateRequest{Csr: csr(t), Metadata: impersonating(workload.String())})
	if err == nil || !strings.Contains(err.Error(), "ztunnel is banned") {
		t.Errorf("a banned proxy: %v", err)
	}
}

// TestClientCertificates: which ones come through the handshake, and which of
// those count.
func TestClientCertificates(t *testing.T) { // and why the others do not
	now := time.Now()
	r := newRig(t)
	foreign := catest.Root(t, now, catest.Spec{Name: "foreign"})
	for name, c := range map[string]struct {
		client *catest.Issuer
		ok     bool
		text   string
	}{
		"good":                      {r.client(), true, ""},
		"expired a while ago":       {r.client(aged(-time.Minute * 59)), true, ""},
		"expired too long ago":      {r.client(aged(-time.Minute * 61)), false, "request authenticate failure: client certificate: "},
		"not yet valid":             {r.client(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), false, "request authenticate failure: client certificate: "},
		"of another root":           {foreign.Leaf(t, now, sleep), false, "request authenticate failure: client certificate: "},
		"of another trust domain":   {r.issuer.Leaf(t, now, spiffeid.RequireFromString("spiffe://example.org/ns/default/sa/sleep")), false, "request authenticate failure: client certificate: "},
		"with two URIs (X-12)":      {r.client(func(c *x509.Certificate) { c.URIs = append(c.URIs, sleep.URL()) }), false, "request authenticate failure: client certificate: "},
		"that signs (X-5)":          {r.client(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), false, "request authenticate failure: client certificate: "},
		"for servers alone (X-10)":  {r.client(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), false, "request authenticate failure: client certificate: "},
		"without usage":             {r.client(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), true, ""},
		"of the trust domain (X-2)": {r.issuer.Leaf(t, now, spiffeid.RequireFromString("spiffe://cluster.local")), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := auth.NewIstioCertificateServiceClient(r.dial(c.client)).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t)})
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			if err == nil && parse(t, reply.CertChain[0])[0].URIs[0].String() != sleep.String() {
				t.Error("another's identity")
			}
		})
	}
}

// TestExpiryCountsOnOpenConnections, which outlive certificates.
func TestExpiryCountsOnOpenConnections(t *testing.T) {
	now := time.Now()
	r := newRig(t)
	leaf := r.client()
	client, err := authn.VerifyClient(now, r.server.bundle(), leaf.Chain(), 0)
	if err != nil {
		t.Fatal(err)
	}
	a := authn.ClientCertificate{RenewExpiredFor: time.Minute}
	for after, ok := range map[time.Duration]bool{0: true, time.Hour - time.Second: true, time.Hour + 59*time.Second: true, time.Hour + 62*time.Second: false} {
		if _, err := a.Authenticate(t.Context(), now.Add(after), authn.Request{Client: client}); (err == nil) != ok {
			t.Errorf("after %s: %v", after, err)
		}
	}
	if _, err := (authn.ClientCertificate{}).Authenticate(t.Context(), now.Add(time.Hour+2*time.Second), authn.Request{Client: client}); err == nil {
		t.Error("expired, and never to be renewed: it counted")
	}
}

// TestLongChainIsRefusedFast: negative test 5.
func TestLongChainIsRefusedFast(t *testing.T) {
	r := newRig(t)
	leaf := r.client()
	chain := leaf.Chain()
	for len(chain) < 100 {
		chain = append(chain, r.issuer.Cert)
	}
	if _, err := authn.VerifyClient(time.Now(), r.server.bundle(), chain, 0); err == nil || !strings.Contains(err.Error(), "100 certificates") {
		t.Errorf("%v", err)
	}
}

// TestNoSessionIsResumed, for it would outlive a change of roots (negative test
// 2), and the roots are those of now at each handshake.
func TestNoSessionIsResumed(t *testing.T) {
	r := newRig(t)
	cfg := r.config(r.client())
	cfg.NextProtos = []string{"h2"}
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	connect := func() (tls.ConnectionState, error) {
		conn, err := tls.Dial("tcp", r.addr, cfg)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // the server's settings: its tickets have come by then
		return conn.ConnectionState(), err
	}
	for range 3 {
		state, err := connect()
		if err != nil || state.DidResume || state.Version < tls.VersionTLS12 {
			t.Fatalf("resumed %t: %v", state.DidResume, err)
		}
	}
	leaf := r.client()
	ask := func() error {
		_, err := auth.NewIstioCertificateServiceClient(r.dial(leaf)).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t)})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	r.server.SetRoots([]*x509.Certificate{catest.Root(t, time.Now(), catest.Spec{Name: "new"}).Cert})
	if err := ask(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a client of the old root came in: %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	r := newRig(t)
	cfg := r.config(nil)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", r.addr, cfg); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was spoken")
	}
}

func TestRootsAreWatched(t *testing.T) {
	r := newRig(t)
	stream, err := citadelv1.NewAgentServiceClient(r.dial(nil)).WatchRoots(t.Context(), &citadelv1.WatchRootsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || len(first.GetRoots()) != 1 || string(first.Roots[0]) != string(r.issuer.Root().Cert.Raw) || string(first.GetSigner()) != string(r.issuer.Cert.Raw) {
		t.Fatalf("%v, %v", first, err)
	}
	fresh := catest.Root(t, time.Now(), catest.Spec{Name: "new"}).Cert
	r.server.SetRoots([]*x509.Certificate{r.issuer.Root().Cert}) // the same: nothing is sent
	r.server.SetRoots([]*x509.Certificate{r.issuer.Root().Cert, fresh})
	second, err := stream.Recv()
	if err != nil || len(second.GetRoots()) != 2 || string(second.Roots[1]) != string(fresh.Raw) {
		t.Fatalf("%v, %v", second, err)
	}
	reply, err := auth.NewIstioCertificateServiceClient(r.dial(r.client())).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t)})
	if err != nil || len(parse(t, reply.CertChain[len(reply.CertChain)-1])) != 2 {
		t.Errorf("the roots of a reply: %v, %v", reply, err)
	}
	r.stop() // and ends in spite of the watch
	if _, err := stream.Recv(); err == nil {
		t.Error("the watch goes on")
	}
}

func TestHealthAndReflection(t *testing.T) {
	r := newRig(t)
	conn := r.dial(nil)
	health := healthgrpc.NewHealthClient(conn)
	for _, ok := range []bool{true, false, true} {
		r.server.SetServing(ok)
		reply, err := health.Check(t.Context(), &healthgrpc.HealthCheckRequest{Service: "istio.v1.auth.IstioCertificateService"})
		if err != nil || (reply.GetStatus() == healthgrpc.HealthCheckResponse_SERVING) != ok {
			t.Errorf("%v, %v", reply, err)
		}
	}
	stream, err := reflectiongrpc.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectiongrpc.ServerReflectionRequest{MessageRequest: &reflectiongrpc.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	reply, err := stream.Recv()
	if err != nil || !strings.Contains(reply.String(), "istio.v1.auth.IstioCAService") || !strings.Contains(reply.String(), "istio.v1.auth.IstioCertificateService") {
		t.Errorf("%v, %v", reply, err)
	}
}

// TestMethodPaths: what is on the wire (compatibility 4.1, 4.2).
func TestMethodPaths(t *testing.T) {
	if auth.IstioCAService_HandleCSR_FullMethodName != "/istio.v1.auth.IstioCAService/HandleCSR" ||
		auth.IstioCertificateService_CreateCertificate_FullMethodName != "/istio.v1.auth.IstioCertificateService/CreateCertificate" {
		t.Error("a method has another path")
	}
	want := map[string]string{
		"CsrRequest.csr_pem": "bytes 1", "CsrRequest.node_agent_credential": "bytes 2", "CsrRequest.credential_type": "string 3",
		"CsrRequest.requested_ttl_minutes": "int32 4", "CsrRequest.forCA": "bool 5",
		"CsrResponse.is_approved": "bool 1", "CsrResponse.status": "message 2", "CsrResponse.signed_cert": "bytes 3", "CsrResponse.cert_chain": "bytes 4",
		"IstioCertificateRequest.csr": "string 1", "IstioCertificateRequest.subject_id": "string 2", "IstioCertificateRequest.validity_duration": "int64 3",
		"IstioCertificateRequest.metadata": "message 4", "IstioCertificateResponse.cert_chain": "string 1",
	}
	for name, got := range fields(auth.File_istio_v1_auth_ca_service_proto, auth.File_istio_v1_auth_istioca_proto) {
		if want[name] != got {
			t.Errorf("%s is %s, want %q", name, got, want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestCallersAreLimited(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Limits = Limits{PerCaller: 0.001, PerCallerBurst: 2} })
	ask := func(client *catest.Issuer) error {
		_, err := auth.NewIstioCertificateServiceClient(r.dial(client)).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t)})
		return err
	}
	one, other := r.client(), r.client()
	for i, c := range []struct {
		client *catest.Issuer
		ok     bool
	}{{one, true}, {one, true}, {one, false}, {other, true}, {other, true}, {other, false}} {
		err := ask(c.client)
		if (err == nil) != c.ok {
			t.Fatalf("call %d: %v", i, err)
		}
		if err == nil {
			continue
		}
		st := status.Convert(err)
		if st.Code() != codes.ResourceExhausted || detail[*errdetails.RetryInfo](st).GetRetryDelay().AsDuration() < time.Minute || !r.last().Limited {
			t.Errorf("%v, %v", err, st.Details())
		}
	}
}

// TestNewCertificateIsNoNewCaller: who asks by the certificate that it has just
// got is limited as before.
func TestNewCertificateIsNoNewCaller(t *testing.T) {
	r := newRig(t, func(s *Settings) { s.Limits = Limits{PerCaller: 0.001, PerCallerBurst: 2} })
	client := r.client()
	for i := range 3 {
		key := catest.Key(t, trust.ECDSAP256, fmt.Sprint("next ", i))
		reply, err := auth.NewIstioCertificateServiceClient(r.dial(client)).CreateCertificate(t.Context(),
			&auth.IstioCertificateRequest{Csr: string(catest.CSRPEM(catest.CSR(t, key, func(*x509.CertificateRequest) {})))})
		if ok := i < 2; (err == nil) != ok {
			t.Fatalf("call %d: %v", i, err)
		}
		if err == nil {
			client = &catest.Issuer{Cert: parse(t, reply.CertChain[0])[0], Key: key, Parent: r.issuer}
		}
	}
}

func TestAllCallersAreLimited(t *testing.T) {
	l := newLimiter(Limits{PerSecond: 1, InFlight: 2}.withDefaults())
	now := time.Now()
	id := authn.Identity{Caller: ca.NewCaller(sleep, "test", "")}
	if err := errors.Join(l.allow(now, id), l.allow(now.Add(1100*time.Millisecond), id)); err != nil {
		t.Error(err)
	}
	if err := l.allow(now.Add(1200*time.Millisecond), id); err == nil || !strings.Contains(err.Error(), "more than 1 certificates a second are asked for") {
		t.Errorf("%v", err)
	}
	leave, err := l.enter()
	if _, second := l.enter(); err != nil || second != nil {
		t.Error("two places are not two places")
	}
	if _, err := l.enter(); err == nil || !isLimit(err) {
		t.Errorf("a third came in: %v", err)
	}
	leave()
	if _, err := l.enter(); err != nil {
		t.Error(err)
	}
}

func TestCallsInParallel(t *testing.T) {
	r := newRig(t)
	conn := r.dial(r.client())
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := auth.NewIstioCertificateServiceClient(conn).CreateCertificate(t.Context(), &auth.IstioCertificateRequest{Csr: csr(t)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestSettingsThatCannotServe(t *testing.T) {
	good := newRig(t).server.set
	for name, edit := range map[string]func(*Settings){
		"authority is not set": func(s *Settings) { s.Authority = nil }, "no authenticator": func(s *Settings) { s.Authenticators = nil },
		"certificate is not set": func(s *Settings) { s.Certificate = nil },
	} {
		set := good
		edit(&set)
		if _, err := New(set); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestListenerThatFailsIsTold(t *testing.T) {
	r := newRig(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	other, err := New(r.server.set)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Serve(t.Context(), listener, time.Second); err == nil || !strings.Contains(err.Error(), "serve the CSR API on 127.0.0.1") {
		t.Errorf("%v", err)
	}
}
