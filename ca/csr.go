package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/trust"
)

// maxCSRBytes bounds a request, PEM or DER: one with an RSA-8192 key and a
// SPIFFE ID of full length stays below half of it.
const maxCSRBytes = 16 << 10

// maxCommonName is ub-common-name of RFC 5280 appendix A.1.
const maxCommonName = 64

var (
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganization = asn1.ObjectIdentifier{2, 5, 4, 10}

	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
)

// maxReason bounds what an error says of a request: it quotes what a caller
// sent, and goes into a gRPC trailer and an audit record.
const maxReason = 512

func csrError(format string, args ...any) *Error {
	reason := fmt.Sprintf(format, args...)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return &Error{Class: CSRError, Reason: reason}
}

// parseCSR reads a request and refuses, by name, everything in it that its
// caller is not. Its key is checked here; its signature is checked by the
// signer, which cannot sign without doing so (C-10).
func parseCSR(text []byte, id spiffeid.ID, dnsNames []string) (*x509.CertificateRequest, error) {
	csr, err := readCSR(text)
	if err != nil {
		return nil, err
	}
	if err := checkSubject(csr, id, dnsNames); err != nil {
		return nil, err
	}
	if err := checkNames(csr, id, dnsNames); err != nil {
		return nil, err
	}
	return csr, checkExtensions(csr)
}

// RequestedKey is the public key that Issue would certify for a request, as
// SubjectPublicKeyInfo in DER. That the caller has its private key is verified.
func RequestedKey(text []byte) ([]byte, error) {
	csr, err := readCSR(text)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, csrError("certificate request is not signed by the key in it: %v", err)
	}
	return csr.RawSubjectPublicKeyInfo, nil
}

// readCSR is the one way in which a request is read: who read it otherwise could
// be told of another key than that which is certified.
func readCSR(text []byte) (*x509.CertificateRequest, error) {
	der, err := csrDER(text)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, csrError("certificate request does not parse: %v", err)
	}
	if err := trust.CheckPublicKey(csr.PublicKey); err != nil {
		return nil, csrError("certificate request's key is refused: %v", err)
	}
	return csr, nil
}

func csrDER(text []byte) ([]byte, error) {
	if len(text) > maxCSRBytes {
		return nil, csrError("certificate request of %d bytes is larger than %d", len(text), maxCSRBytes)
	}
	if len(text) > 0 && text[0] == 0x30 { // an ASN.1 SEQUENCE
		return text, nil
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, csrError("certificate request is neither PEM nor DER")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, csrError("PEM block %q is no certificate request", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, csrError("certificate request is followed by other data")
	}
	return block.Bytes, nil
}

// checkSubject allows a common name that is one of the caller's names, and any
// Organization, which old node agents send and which certifies nothing here.
func checkSubject(csr *x509.CertificateRequest, id spiffeid.ID, dnsNames []string) error {
	for _, attribute := range csr.Subject.Names {
		value := fmt.Sprint(attribute.Value)
		switch {
		case attribute.Type.Equal(oidOrganization), value == "":
		case !attribute.Type.Equal(oidCommonName):
			return csrError("certificate request asks for subject attribute %s=%q", attribute.Type, value)
		case value != id.String() && !slices.Contains(dnsNames, value):
			return csrError("certificate request asks for common name %q, its caller is %s", value, id)
		}
	}
	return nil
}

func checkNames(csr *x509.CertificateRequest, id spiffeid.ID, dnsNames []string) error {
	for _, uri := range csr.URIs {
		if uri.String() != id.String() {
			return csrError("certificate request asks for URI %q, its caller is %s", uri, id)
		}
	}
	for _, name := range csr.DNSNames {
		if !slices.Contains(dnsNames, name) {
			return csrError("certificate request asks for DNS name %q, which %s may not have", name, id)
		}
	}
	if len(csr.EmailAddresses) > 0 {
		return csrError("certificate request asks for e-mail address %q, which no workload may have", csr.EmailAddresses[0])
	}
	if len(csr.IPAddresses) > 0 {
		return csrError("certificate request asks for IP address %s, which no workload may have", csr.IPAddresses[0])
	}
	return nil
}

// checkExtensions allows the extensions that we would set ourselves, with no
// more in them than we would set. Each is there once: crypto/x509 parses no
// request that has one twice.
func checkExtensions(csr *x509.CertificateRequest) error {
	for _, ext := range csr.Extensions {
		var err error
		switch {
		case ext.Id.Equal(oidSubjectAltName):
			err = checkSANKinds(ext.Value)
		case ext.Id.Equal(oidSubjectKeyID):
		case ext.Id.Equal(oidBasicConstraints):
			err = checkBasicConstraints(ext.Value)
		case ext.Id.Equal(oidKeyUsage):
			err = checkKeyUsage(ext.Value)
		case ext.Id.Equal(oidExtKeyUsage):
			err = checkExtKeyUsage(ext.Value)
		default:
			err = csrError("certificate request asks for extension %s", ext.Id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The context-specific tags of GeneralName (RFC 5280 4.2.1.6) whose values
// checkNames has compared.
const (
	tagEmail = 1
	tagDNS   = 2
	tagURI   = 6
	tagIP    = 7
)

// checkSANKinds refuses names that crypto/x509 leaves unparsed: otherName,
// directoryName and the like, and what only looks like a kind that it parses.
func checkSANKinds(der []byte) error {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return csrError("certificate request's subject alternative names do not parse")
	}
	for _, name := range names {
		compared := name.Class == asn1.ClassContextSpecific && !name.IsCompound &&
			slices.Contains([]int{tagEmail, tagDNS, tagURI, tagIP}, name.Tag)
		if !compared {
			return csrError("certificate request asks for a subject alternative name of kind %d", name.Tag)
		}
	}
	return nil
}

func checkBasicConstraints(der []byte) error {
	var bc struct {
		IsCA    bool `asn1:"optional"`
		PathLen int  `asn1:"optional,default:-1"`
	}
	bc.PathLen = -1
	if rest, err := asn1.Unmarshal(der, &bc); err != nil || len(rest) > 0 {
		return csrError("certificate request's basic constraints do not parse")
	}
	if bc.IsCA || bc.PathLen >= 0 {
		return csrError("certificate request asks to be a CA (basic constraints CA:TRUE)")
	}
	return nil
}

func checkKeyUsage(der []byte) error {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(der, &bits); err != nil || len(rest) > 0 {
		return csrError("certificate request's key usage does not parse")
	}
	const digitalSignature, keyEncipherment = 0, 2 // RFC 5280 4.2.1.3
	for i := range bits.BitLength {
		if bits.At(i) == 1 && i != digitalSignature && i != keyEncipherment {
			return csrError("certificate request asks for key usage bit %d", i)
		}
	}
	return nil
}

func checkExtKeyUsage(der []byte) error {
	var usages []asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(der, &usages); err != nil || len(rest) > 0 {
		return csrError("certificate request's extended key usage does not parse")
	}
	for _, usage := range usages {
		if !usage.Equal(oidServerAuth) && !usage.Equal(oidClientAuth) {
			return csrError("certificate request asks for extended key usage %s", usage)
		}
	}
	return nil
}
