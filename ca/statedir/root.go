package statedir

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"citadel/ca/trust"
)

// LoadRoot returns the root of the directory, and makes it where there is none.
// A file of the two that is damaged, or there without the other, is an error and
// stays as it is. Only the citadel that serves may call it.
//
// A new root is written down under temporary names first, and then gets its
// names, the key last. Who is killed in between leaves either no root, or a
// certificate whose key is under the temporary name: that is finished next time.
func (d *Dir) LoadRoot(now time.Time, root trust.SelfSigned) (signer *trust.Signer, made bool, err error) {
	cert, err := d.there(certName)
	if err != nil {
		return nil, false, err
	}
	key, err := d.there(keyName)
	if err != nil {
		return nil, false, err
	}
	switch {
	case cert && !key:
		err = d.finishRoot()
	case key && !cert:
		err = d.half(keyName, certName)
	case !key && !cert:
		made, err = true, d.makeRoot(now, root)
	}
	if err != nil {
		return nil, false, err
	}
	if signer, err = d.readRoot(now); err != nil {
		return nil, false, err
	}
	for _, name := range []string{certName, keyName} {
		if err := d.remove(temporary(name)); err != nil {
			return nil, false, err
		}
	}
	return signer, made, nil
}

func (d *Dir) half(has, lacks string) error {
	return fmt.Errorf("%s is there and %s is not: restore it from a backup, or move %s away too to begin with a new root, which no host trusts yet",
		d.name(has), d.name(lacks), has)
}

// makeRoot never writes over anything.
func (d *Dir) makeRoot(now time.Time, root trust.SelfSigned) error {
	signer, err := trust.NewSelfSigned(now, root)
	if err != nil {
		return err
	}
	key, err := trust.MarshalKey(signer.Key())
	if err != nil {
		return err
	}
	if err := d.prepare(keyName, key); err != nil {
		return err
	}
	if err := d.prepare(certName, signer.RootsPEM()); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.publish(certName); err != nil {
		return err
	}
	return d.publish(keyName)
}

// finishRoot gives the key its name, if the certificate's is there under the
// temporary one.
func (d *Dir) finishRoot() error {
	certs, err := d.Roots()
	if err != nil {
		return err
	}
	text, _, err := d.read(temporary(keyName))
	if errors.Is(err, fs.ErrNotExist) {
		return d.half(certName, keyName)
	}
	if err != nil {
		return err
	}
	key, err := trust.ParseKey(text)
	if err != nil || !trust.SamePublicKey(certs[0].PublicKey, key.Public()) {
		return d.half(certName, keyName)
	}
	return d.publish(keyName)
}

func (d *Dir) readRoot(now time.Time) (*trust.Signer, error) {
	cert, _, err := d.read(certName)
	if err != nil {
		return nil, err
	}
	key, mode, err := d.read(keyName)
	if err != nil {
		return nil, err
	}
	if mode&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by other users (mode %#o): chmod 600 %s", d.name(keyName), mode, d.name(keyName))
	}
	roots := trust.Piece{Name: d.name(certName), PEM: cert}
	signer, err := trust.NewSigner(now, trust.Pieces{Cert: roots, Key: trust.Piece{Name: d.name(keyName), PEM: key}, Roots: roots})
	if err != nil {
		return nil, fmt.Errorf("the root of %s cannot be used, and no other is made in its place: %w", d.path, err)
	}
	return signer, nil
}

// Roots returns the certificates in the directory, the root's first.
func (d *Dir) Roots() ([]*x509.Certificate, error) {
	text, _, err := d.read(certName)
	if err != nil {
		return nil, err
	}
	certs, err := trust.ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", d.name(certName), err)
	}
	return certs, nil
}

// HoldsRoot tells whether the directory still holds a root and its key: nil if
// it does.
func (d *Dir) HoldsRoot(root *x509.Certificate) error {
	certs, err := d.Roots()
	if err != nil {
		return err
	}
	if !certs[0].Equal(root) {
		return fmt.Errorf("%s is another certificate: %s", d.name(certName), trust.Name(certs[0]))
	}
	text, _, err := d.read(keyName)
	if err != nil {
		return err
	}
	if key, err := trust.ParseKey(text); err != nil || !trust.SamePublicKey(root.PublicKey, key.Public()) {
		return fmt.Errorf("%s is not the key of %s", d.name(keyName), d.name(certName))
	}
	return nil
}
