/** The name that the config gives to a use. A place ends with the kind and the name, `/http:my_filter` (Scope.nestedPlace). */
export function configNameOf(place: string): string {
  const name = place.slice(place.indexOf(":", place.lastIndexOf("/")) + 1);
  return name.replaceAll("~1", "/").replaceAll("~0", "~");
}
