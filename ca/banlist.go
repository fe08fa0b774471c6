package ca

import (
	"encoding/json"
	"fmt"
	"time"
)

// Ban is why and when somebody was banned.
type Ban struct {
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// BanList is who is banned, by SPIFFE ID or serial number, as a person wrote
// it. It is what is stored, wherever that is.
type BanList map[string]Ban

// ParseBanList reads what Encode made. The list of an empty text is empty; it is
// never nil.
func ParseBanList(text []byte) (BanList, error) {
	list := BanList{}
	if len(text) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("is damaged: %w", err)
	}
	if list == nil { // a text "null"
		list = BanList{}
	}
	return list, nil
}

// Encode returns the list as text, or an error for a ban that would ban nobody.
func (l BanList) Encode() ([]byte, error) {
	if _, err := l.Bans(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the bans: %w", err)
	}
	return append(text, '\n'), nil
}

// Bans makes of the list what an authority goes by.
func (l BanList) Bans() (Bans, error) {
	reasons := map[string]string{}
	for whom, ban := range l {
		reasons[whom] = ban.Reason
	}
	return NewBans(reasons)
}
