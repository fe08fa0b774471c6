package picture

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"

	"citadel/cmd/citadelctl/mesh"
)

// MaxCells is how many cells a page may have: browsers are slow with more.
const MaxCells = 300_000

var (
	//go:embed page.html
	pageText string
	//go:embed page.css
	pageStyle string
	//go:embed page.js
	pageScript string

	page = template.Must(template.New("page").Parse(pageText))
)

// pageData is what the page shows.
type pageData struct {
	Policy  template.HTMLAttr // of what it may load: itself alone
	Style   template.CSS
	Script  template.JS
	About   string
	Legend  []legendItem
	Columns []pageColumn
	Rows    []pageRow
}

type legendItem struct {
	Class, Word string
	Count       int
}

type pageColumn struct{ Name, Title string }

type pageRow struct {
	Host  string
	Port  int32
	Cells []pageCell
}

type pageCell struct{ Class, Word, Why string }

// HTML writes a page of its own: with a filter, and the reason of each cell where
// the mouse rests. about is what it is of.
func HTML(w io.Writer, m *mesh.Matrix, about string) error {
	data := pageData{About: about, Style: template.CSS(pageStyle), Script: template.JS(pageScript)}
	data.Policy = template.HTMLAttr(fmt.Sprintf(`content="default-src 'none'; style-src '%s'; script-src '%s'"`, sum(pageStyle), sum(pageScript)))
	counts := m.Counts()
	for _, look := range allLooks {
		data.Legend = append(data.Legend, legendItem{styles[look].class, look.String(), counts[look]})
	}
	for _, column := range m.Columns {
		data.Columns = append(data.Columns, pageColumn{clean(column.Name()), clean(column.Names())})
	}
	for row, server := range m.Servers {
		r := pageRow{Host: mesh.ShortHost(server.Host), Port: server.Port}
		for column := range m.Columns {
			c := m.At(row, column)
			r.Cells = append(r.Cells, pageCell{styles[c.Look()].class, c.Look().String(), c.Reason()})
		}
		data.Rows = append(data.Rows, r)
	}
	return page.Execute(w, data)
}

// sum names a text in a content security policy.
func sum(text string) string {
	digest := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(digest[:])
}
