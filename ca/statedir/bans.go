package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"citadel/ca"
)

// ReadBans returns the list, empty where there is none.
func (d *Dir) ReadBans(context.Context) (ca.BanList, error) {
	text, _, err := d.read(bansName)
	if errors.Is(err, fs.ErrNotExist) {
		return ca.BanList{}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(text) == 0 { // what is written here never is: nobody's ban ends by that
		return nil, fmt.Errorf("%s is empty: restore it from a backup, or delete it to ban nobody", d.name(bansName))
	}
	list, err := ca.ParseBanList(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", d.name(bansName), err)
	}
	return list, nil
}

// EditBans changes the list as one step in respect of everybody else's edits.
func (d *Dir) EditBans(ctx context.Context, edit func(ca.BanList) error) error {
	return d.edit(ctx, func() error {
		list, err := d.ReadBans(ctx)
		if err != nil {
			return err
		}
		if err := edit(list); err != nil {
			return err
		}
		text, err := list.Encode()
		if err != nil {
			return err
		}
		if len(text) > maxBytes {
			return fmt.Errorf("%s would be larger than %d bytes: lift bans that are over", d.name(bansName), maxBytes)
		}
		return d.replace(bansName, text)
	})
}
