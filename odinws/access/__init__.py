"""Who may do what: origins, tokens, permissions, addresses, rates.

Nothing here knows HTTP libraries, sockets or connections: header values and times come in as arguments.

origin        which pages may connect                credentials   where a request carries its token
keys          what tokens are checked with           tokens        a token -> an `Identity`
permissions   what a token grants                   peer          who the client is
rates         how many upgrades per second          headers       what every HTTP answer says to browsers
admin         who may use the admin plane           patterns      names of channels, and what they match
channels      which channels there are, and for whom
"""
