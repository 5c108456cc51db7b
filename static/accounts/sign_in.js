/* The pages of signing in: the theme that the admin keeps, what a passkey says when it fails, and
   the copy button of recovery codes. Works under a policy that allows no script in a page. */
'use strict'
;(() => {
  const kept = (localStorage.getItem('adminTheme') || '').replaceAll('"', '')
  const system = window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'
  document.documentElement.dataset.theme = ['dark', 'light'].includes(kept) ? kept : system

  const REASONS = {
    NotAllowedError: 'No passkey was used: it was cancelled, or it took too long. Try again.',
    InvalidStateError: 'This device has a passkey of yours already.',
    SecurityError: 'Passkeys need a host name and https. Open the platform under its name, or under localhost.',
    NotSupportedError: 'This device cannot make such a passkey.'
  }

  function say (words) {
    const place = document.getElementById('passkey-error')
    if (!place) return
    place.textContent = words
    place.hidden = false
  }

  document.addEventListener('allauth.error', event => {
    event.preventDefault()
    const name = event.detail.exception && event.detail.exception.name
    say(REASONS[name] || 'The passkey could not be used. Try again, or use another way.')
  })

  document.addEventListener('DOMContentLoaded', () => {
    const can = window.isSecureContext && 'credentials' in navigator && 'PublicKeyCredential' in window
    for (const one of document.querySelectorAll('[data-needs-passkeys]')) one.hidden = !can
    for (const one of document.querySelectorAll('[data-without-passkeys]')) one.hidden = can
    const copy = document.getElementById('copy-codes')
    if (copy && navigator.clipboard) {
      copy.addEventListener('click', () => {
        const codes = [...document.querySelectorAll('.codes li')].map(one => one.textContent.trim())
        navigator.clipboard.writeText(codes.join('\n')).then(() => { copy.textContent = 'Copied' }, () => {})
      })
    } else if (copy) copy.hidden = true
  })
})()
