package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
)

// Who is banned is read again and again. When it cannot be, the bans of before
// hold for a while, and then nothing is issued: whoever can keep them from being
// read could otherwise go on by a ban for ever. A file can always be read, so
// that its while is short; in a cluster it is longer than a restart of the API
// server takes, without which the CSR API goes on.
const (
	// bansEvery is how soon a ban counts on every replica.
	bansEvery = 5 * time.Second
	// bansReadLimit bounds one reading.
	bansReadLimit = 10 * time.Second
	// How long the bans that were read last are gone by.
	bansHoldInFolder  = 30 * time.Second
	bansHoldInCluster = 5 * time.Minute
)

// awaitBans reads the bans before anybody is answered. It returns an error only
// when ctx ends first.
func (p *process) awaitBans(ctx context.Context, s stores, authority *ca.Authority) error {
	for p.readBans(ctx, s, authority) != nil {
		select {
		case <-time.After(bansEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// readBans has the authority go by the bans that are stored now. A list that
// cannot be read leaves those of before, until their time is over.
func (p *process) readBans(ctx context.Context, s stores, authority *ca.Authority) error {
	began := time.Now() // whoever is banned later may be missing
	bans, err := p.storedBans(ctx, s)
	if err == nil {
		bans.Until = began.Add(s.bansHold)
		authority.SetBans(bans)
		p.bansUntil.Store(&bans.Until)
		p.bansErr.Store(nil)
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	p.bansErr.Store(&err)
	if why := p.bansUnknown(); why != nil {
		p.log.Error("the bans are not read, and nothing is issued before they are", "err", err)
	} else {
		p.log.Error("the bans are not read; those of before hold, and then nothing is issued", "until", p.bansUntil.Load().UTC(), "err", err)
	}
	return err
}

func (p *process) storedBans(ctx context.Context, s stores) (ca.Bans, error) {
	ctx, cancel := context.WithTimeout(ctx, bansReadLimit)
	defer cancel()
	list, err := s.bans(ctx)
	if err != nil {
		return ca.Bans{}, err
	}
	p.warnOfForeignBans(list)
	return list.Bans()
}

// bansUnknown is why nobody may be issued anything: nobody knows who is banned.
func (p *process) bansUnknown() error {
	until := p.bansUntil.Load()
	if until == nil {
		return errors.New("who is banned is not known yet, and nothing is issued before")
	}
	if time.Now().Before(*until) {
		return nil
	}
	if err := p.bansErr.Load(); err != nil {
		return fmt.Errorf("%w, and nothing is issued before it is: %w", ca.ErrBansUnknown, *err)
	}
	return fmt.Errorf("%w, and nothing is issued before it is", ca.ErrBansUnknown)
}

// mayIssue is why certificates must not be made now.
func (p *process) mayIssue() error {
	if err := p.clockWrong(); err != nil {
		return err
	}
	return p.bansUnknown()
}

// warnOfForeignBans tells, once, of bans that are of nobody here: somebody may
// have meant to ban one of ours.
func (p *process) warnOfForeignBans(list ca.BanList) {
	foreign := foreignBans(list, p.cfg.td)
	told := strings.Join(foreign, " ")
	if was := p.foreignBans.Swap(&told); len(foreign) == 0 || was != nil && *was == told {
		return
	}
	p.log.Warn("identities of another trust domain are banned, which bans nobody here: was one of ours meant?",
		"banned", foreign, "trustDomain", p.cfg.td.Name())
}

// foreignBans are the identities of a list that are not of the trust domain.
func foreignBans(list ca.BanList, td spiffeid.TrustDomain) []string {
	var foreign []string
	for whom := range list {
		if id, err := spiffeid.FromString(whom); err == nil && !id.MemberOf(td) {
			foreign = append(foreign, whom)
		}
	}
	slices.Sort(foreign)
	return foreign
}
