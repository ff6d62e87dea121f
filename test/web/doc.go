// Package web holds the tests of the pages in a real browser.
package web
