package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"time"

	"github.com/cloudflare/cfssl/config"
	cferr "github.com/cloudflare/cfssl/errors"
	cflog "github.com/cloudflare/cfssl/log"
	"github.com/cloudflare/cfssl/signer"
	"github.com/cloudflare/cfssl/signer/local"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// prepared is a request that passed every check. Only Authority.prepare makes
// one, and only one of these can be signed.
type prepared struct {
	caller     Caller
	key        crypto.PublicKey
	csr        *x509.CertificateRequest // nil when the key is this process's own
	commonName string
	dnsNames   []string
	addresses  []netip.Addr // of a server of this process
	validity   validity
	serial     *big.Int
	now        time.Time
}

// signFunc turns a prepared request into a certificate. Its errors are *Error.
type signFunc func(*prepared) (*x509.Certificate, error)

// The profiles of cfssl: keyEncipherment is for RSA keys alone.
const (
	profileSignature    = "signature"
	profileEncipherment = "encipherment"
)

var profiles = map[string]*config.SigningProfile{
	profileSignature:    profile("digital signature"),
	profileEncipherment: profile("digital signature", "key encipherment"),
}

// quiet stops cfssl's global logger, which would write a line for each
// signature (C-9). Our audit records take its place.
var quiet = sync.OnceFunc(func() { cflog.Level = cflog.LevelFatal + 1 })

// newSigner keeps cfssl behind a function: it gets every field of the
// certificate from us, and nothing but the public key from the request. Where
// there is no request, the certificate is made in the likeness of one that
// cfssl signed.
func newSigner(s *trust.Signer, self spiffeid.ID) (signFunc, error) {
	quiet()
	parent, err := withKeyID(s.Cert())
	if err != nil {
		return nil, err
	}
	cf, err := local.NewSigner(s.Key(), parent, signer.DefaultSigAlgo(s.Key()), &config.Signing{
		Default: profiles[profileSignature], Profiles: profiles})
	if err != nil {
		return nil, fmt.Errorf("set up the signer for %s: %w", trust.Name(s.Cert()), err)
	}
	aki, err := authorityKeyID(parent)
	if err != nil {
		return nil, err
	}
	models, err := newModels(cf, s, self, aki)
	if err != nil {
		return nil, fmt.Errorf("try the signer for %s: %w", trust.Name(s.Cert()), err)
	}
	return func(p *prepared) (*x509.Certificate, error) {
		san, err := subjectAltName(p)
		if err != nil {
			return nil, &Error{Class: CertGenError, Reason: "the names do not encode", Cause: err}
		}
		var der []byte
		if name := profileName(p.key); p.csr != nil {
			der, err = signCSR(cf, name, p, san, aki)
		} else {
			der, err = models[name].sign(s.Key(), p, san)
		}
		if err != nil {
			return nil, signError(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &Error{Class: CertGenError, Reason: "the signed certificate does not parse", Cause: err}
		}
		return leaf, nil
	}, nil
}

// newModels has cfssl sign a certificate of each profile, for a key that is
// thrown away.
func newModels(cf *local.Signer, s *trust.Signer, self spiffeid.ID, aki pkix.Extension) (map[string]*model, error) {
	key, err := trust.ECDSAP256.Generate()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	past := s.Cert().NotBefore
	p := &prepared{caller: Caller{id: self}, csr: &x509.CertificateRequest{Raw: der}, serial: big.NewInt(1), validity: validity{past, past}}
	san, err := subjectAltName(p)
	if err != nil {
		return nil, err
	}
	models := map[string]*model{}
	for name := range profiles {
		der, err := signCSR(cf, name, p, san, aki)
		if err != nil {
			return nil, err
		}
		if models[name], err = newModel(der); err != nil {
			return nil, err
		}
	}
	return models, nil
}

// profile whitelists the public key of a request (C-1, C-2) and the extensions
// that we set, and never makes a CA.
func profile(usages ...string) *config.SigningProfile {
	return &config.SigningProfile{
		Usage:        append(usages, "server auth", "client auth"),
		Expiry:       time.Hour, // never counts: each request states both times (C-5)
		ExpiryString: "1h",
		CSRWhitelist: &config.CSRWhitelist{PublicKey: true, PublicKeyAlgorithm: true, SignatureAlgorithm: true},

		ExtensionWhitelist:          map[string]bool{oidSubjectAltName.String(): true, oidAuthorityKeyID.String(): true},
		ClientProvidesSerialNumbers: true,
	}
}

// profileName is the profile for a key.
func profileName(key crypto.PublicKey) string {
	if _, ok := key.(*rsa.PublicKey); ok {
		return profileEncipherment
	}
	return profileSignature
}

func signCSR(cf *local.Signer, profile string, p *prepared, extensions ...pkix.Extension) ([]byte, error) {
	var set []signer.Extension
	for _, e := range extensions {
		set = append(set, signer.Extension{ID: config.OID(e.Id), Critical: e.Critical, Value: hex.EncodeToString(e.Value)})
	}
	text, err := cf.Sign(signer.SignRequest{
		Request:   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: p.csr.Raw})),
		Subject:   &signer.Subject{CN: p.commonName},
		Profile:   profile,
		Serial:    p.serial,
		NotBefore: p.validity.notBefore,
		NotAfter:  p.validity.notAfter,

		Extensions: set,
	})
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the signer returned no PEM")
	}
	return block.Bytes, nil
}

// signError tells a request whose signature is not its key's from a failure
// of the signer.
func signError(err error) *Error {
	const category = 1000 // cfssl's codes are category × 1000 + reason
	if e, ok := errors.AsType[*cferr.Error](err); ok && e.ErrorCode/category == int(cferr.CSRError)/category {
		return &Error{Class: CSRError, Reason: "certificate request is not signed by its own key", Cause: err}
	}
	return &Error{Class: CertGenError, Reason: "signing failed", Cause: err}
}

// subjectAltName encodes exactly one URI and then the other names, always
// critical: the subject may be empty, and cfssl's own way of taking
// names guesses their kind (C-7).
func subjectAltName(p *prepared) (pkix.Extension, error) {
	names := []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(p.caller.id.String())}}
	for _, name := range p.dnsNames {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagDNS, Bytes: []byte(name)})
	}
	for _, a := range p.addresses {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tagIP, Bytes: a.Unmap().AsSlice()})
	}
	der, err := asn1.Marshal(names)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("encode the names of %s: %w", p.caller.id, err)
	}
	return pkix.Extension{Id: oidSubjectAltName, Critical: true, Value: der}, nil
}
